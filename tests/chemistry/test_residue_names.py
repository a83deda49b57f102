"""Names that the PDB, Amber, CHARMM, GROMACS and Schrodinger give residues, as they stand in PDB files."""

from __future__ import annotations

import pytest

from src.chemistry.atoms import StructureError
from src.chemistry.proteins import incomplete_residues, read_protein
from src.chemistry.residue_names import ATOM_NAMES, END_RESIDUES, FOUR_LETTERS, PROTONATION
from src.chemistry.residues import IONS, MODIFIED, residue_bonds
from src.graph import FEATURE_COLUMN, MAX_CHARGE, RESIDUE_TYPES, Side

BACKBONE = [("N", "N"), ("CA", "C"), ("C", "C"), ("O", "O"), ("CB", "C")]
NUCLEOTIDE = [
    ("P", "P"), ("OP1", "O"), ("O5'", "O"), ("C5'", "C"), ("C4'", "C"), ("O4'", "O"), ("C3'", "C"), ("C1'", "C"),
]  # fmt: skip


def residue(name: str, atoms: list[tuple[str, str]], number: int = 1, y: float = 0.0, *, chain: str = "A") -> str:
    """The name stands in columns 18 to 21 as it is given, with blanks behind it."""
    rows = [
        f"ATOM  {n:>5} {atom if len(atom) == 4 else f' {atom:<3}'} {name:<4}{chain}{number:>4}    "
        f"{1.4 * n:8.3f}{y:8.3f}{0.0:8.3f}  1.00  0.00          {element:>2}\n"
        for n, (atom, element) in enumerate(atoms)
    ]
    return "".join(rows)


@pytest.fixture
def read(tmp_path):
    def _read(text: str):
        (tmp_path / "some.pdb").write_text(text)
        return read_protein(tmp_path / "some.pdb").atoms

    return _read


def kinds(atoms, *, number: int = 0) -> set[tuple[Side, str]]:
    rows = atoms.features[atoms.residue_index == number]
    return {(Side(row[FEATURE_COLUMN["side"]]), RESIDUE_TYPES[row[FEATURE_COLUMN["residue"]]]) for row in rows.tolist()}


@pytest.mark.fault("H10")
@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("NALA CALA", "ALA"),
        ("ARN ARGN NARG CARG", "ARG"),
        ("ASH ASPH ASPP AS4 CASP NASH", "ASP"),
        ("CYM CYX CYSH CYS1 CYS2 CYT CYN NCYX CCYM", "CYS"),
        ("GLH GLUH GLUP GL4 NGLU", "GLU"),
        ("NGLY CGLY", "GLY"),
        ("HID HIE HIP HSD HSE HSP HISA HISB HISD HISE HISH HISP HIS1 HIS2 NHIE CHIP", "HIS"),
        ("LYN LSN LYSH LYSN LYP CLYN NLYP", "LYS"),
        ("MSE", "MET"),
        ("PHEU", "PHE"),
        ("SRO NSER", "SER"),
        ("THO CTHR", "THR"),
        ("TYM TYO TYRU", "TYR"),
    ],
)
def test_protonation_states_and_ends_of_chains(read, names, kind):
    for name in names.split():
        atoms = read(residue(name, BACKBONE))
        assert kinds(atoms) == {(Side.PROTEIN, kind)}, name
        assert atoms.bonds.shape[1] == 3, name  # CA-CB is longer than a bond here
        assert atoms.residue_labels == (f"A:{name}1",)


def test_every_name_of_the_tables_is_an_amino_acid_with_the_atoms_of_its_parent():
    for name, parent in {**PROTONATION, **END_RESIDUES}.items():
        assert MODIFIED[name] == parent
        assert residue_bonds(name, Side.PROTEIN) == residue_bonds(parent, Side.PROTEIN)
    assert all(len(name) == 4 for name in FOUR_LETTERS)


@pytest.mark.fault("H5", "H10")
@pytest.mark.parametrize(
    "names",
    [
        "A C G U I DA DC DG DT DU",  # PDB
        "RA RC RG RU RA5 RC3 RGN A5 C5 G3 U3 UN DA5 DC3 DG5 DT3 DAN",  # Amber
        "ADE CYT GUA URA THY DADE DTHY RADE RURA",  # CHARMM, GROMOS, Amber of old
        "T +A +U",  # the PDB of old
    ],
)
def test_nucleotides(read, names):
    """The element is known without its column too; a pocket of RNA alone is read."""
    for name in names.split():
        for element in (True, False):
            atoms = [(atom, symbol if element else "") for atom, symbol in NUCLEOTIDE]
            for form in (atoms, [(atom.replace("'", "*"), symbol) for atom, symbol in atoms]):
                found = read(residue(name, form))
                assert kinds(found) == {(Side.PROTEIN, "nucleotide")}, name
                assert sorted(found.features[:, 0].tolist()) == [6, 6, 6, 6, 8, 8, 8, 15], name
                charges = found.features[:, FEATURE_COLUMN["charge"]].tolist()
                assert charges.count(MAX_CHARGE - 1) == 1, name


def test_names_are_found_in_any_of_their_columns(read):
    """Left, right, and on the right of four columns."""
    for text in ("DA  ", " DA ", "  DA", "RG  ", " RG ", "  RG", "RG5 ", "ALA ", " ALA"):
        atoms = read(residue(text, BACKBONE if "ALA" in text else NUCLEOTIDE))
        assert atoms.residue_labels == (f"A:{text.strip()}1",)
        assert {side for side, _ in kinds(atoms)} == {Side.PROTEIN}
    two_letters = read(residue("ALA", BACKBONE, chain="B").replace("ALA B", "ALAXB"))
    assert two_letters.residue_labels == ("B:ALA1",)
    cytidine = read(residue("  C", NUCLEOTIDE, chain="B").replace("  C B", "  COB"))
    assert cytidine.residue_labels == ("B:C1",)


@pytest.mark.fault("H10")
def test_names_that_mean_other_molecules_too_are_told_by_their_atoms(read):
    base = [("N9", "N"), ("C8", "C"), ("N7", "N"), ("C5", "C")]
    text = residue("ALA", BACKBONE, 9) + residue("ADE", base, 10, 9.0) + residue("CYT", base, 11, 18.0)
    text += residue("CYT", BACKBONE, 12, 27.0) + residue("RU", [("RU", "RU")], 13, 36.0)
    text += residue("CYN", [("C", "C"), ("N", "N")], 14, 45.0)
    found = [next(iter(kinds(read(text), number=n)))[0] for n in range(6)]
    assert found == [Side.PROTEIN, Side.COFACTOR, Side.COFACTOR, Side.PROTEIN, Side.ION, Side.COFACTOR]
    with pytest.raises(StructureError, match="no protein or nucleic acid atoms, only ADE"):
        read(residue("ADE", base))


@pytest.mark.parametrize(
    ("name", "atoms"),
    [
        ("ACE", "C O CH3"),
        ("NME", "N C"),
        ("NME", "N CH3"),
        ("NMA", "N CA"),
        ("NAC", "N CH3"),
        ("NH2", "N"),
        ("NHE", "N"),
    ],
)
def test_caps_belong_to_the_chain(read, name, atoms):
    cap = [(atom, atom[0]) for atom in atoms.split()]
    found = read(residue("ALA", BACKBONE) + residue(name, cap, 2, 9.0))
    assert kinds(found, number=1) == {(Side.PROTEIN, "other")}
    assert found.bonds.shape[1] == 3 + len(cap) - 1
    other = read(residue("ALA", BACKBONE) + residue(name, [*cap, ("C7", "C"), ("C8", "C")], 2, 9.0))
    assert kinds(other, number=1) == {(Side.COFACTOR, "none")}


@pytest.mark.fault("H10")
@pytest.mark.parametrize(
    "name", ["HOH", "WAT", "DOD", "SOL", "TIP3", "TIP", "TP3", "TIP4", "TIP5", "SPC", "SPCE", "T4P", "OPC"]
)
@pytest.mark.parametrize("oxygen", ["O", "OW", "OH2"])
def test_waters(read, name, oxygen):
    text = residue("ALA", BACKBONE) + residue(name, [(oxygen, "O"), ("H1", "H"), ("H2", "H")], 2, 9.0)
    text += residue(name, [("EPW", "EP"), ("MW", ""), ("LP1", "LP")][: 3 * (name != "OPC")], 2, 9.0)
    found = read(text)
    assert kinds(found, number=1) == {(Side.WATER, "none")}
    assert len(found) == 6


@pytest.mark.fault("H10")
@pytest.mark.parametrize(
    ("names", "number", "charge"),
    [
        ("NA NA+ Na+ SOD IP", 11, 1),
        ("CL CL- Cl- CLA IM", 17, -1),
        ("K K+ POT", 19, 1),
        ("CA CAL CA2+", 20, 2),
        ("MG MG2 MG2+", 12, 2),
        ("ZN ZN2 ZN2+", 30, 2),
        ("CES CS+", 55, 1),
        ("CAD CD2+", 48, 2),
        ("BR-", 35, -1),
    ],
)
def test_ions_of_simulations(read, names, number, charge):
    """The atom has the name of the residue, in any column, with and without its element."""
    for name in names.split():
        for element in ("", name.strip("+-2")[:2] if number != 55 else "CS"):
            text = residue("ALA", BACKBONE) + residue(name, [(name, element)], 2, 9.0)
            found = read(text)
            assert kinds(found, number=1) == {(Side.ION, "none")}, name
            assert found.features[-1].tolist()[0] == number, (name, element)
            assert found.features[-1, FEATURE_COLUMN["charge"]] == MAX_CHARGE + charge
    assert IONS["CAD"][0] == 48


def test_cofactors_with_the_names_of_ions_keep_their_elements(read):
    """CAD is cadmium in CHARMM and cacodylate in the PDB."""
    found = read(residue("ALA", BACKBONE) + residue("CAD", [("AS", ""), ("C1", ""), ("O1", "")], 2, 9.0))
    assert found.features[5:, 0].tolist() == [0, 6, 8]  # AS in the second column begins with an A
    assert kinds(found, number=1) == {(Side.COFACTOR, "none")}


@pytest.mark.fault("H10")
@pytest.mark.parametrize("last", [("OT1", "OT2"), ("O1", "O2"), ("OC1", "OC2")])
def test_atoms_that_other_programs_name_otherwise_have_the_facts_of_the_table(read, last):
    """The last oxygens of a chain, and CD1 of isoleucine; in the order of the table."""
    ours = [*BACKBONE[:4], ("CB", "C"), ("CG1", "C"), ("CG2", "C"), ("CD1", "C"), ("OXT", "O")]
    renamed = dict(zip(("O", "OXT"), last, strict=True)) | {"CD1": "CD"}
    theirs = [(renamed.get(name, name), element) for name, element in ours]
    one, other = read(residue("ILE", ours)), read(residue("ILE", theirs))
    assert (one.features == other.features).all()
    assert (one.pos == other.pos).all()
    assert set(last) | {"CD"} <= set(other.atom_names)
    assert "CD" not in ATOM_NAMES["LYS"]
    assert incomplete_residues(other) == frozenset() == incomplete_residues(one)
