import gzip
import os
import time
from pathlib import Path

import numpy as np
import pytest

from src.chemistry import pdb_records as records
from src.chemistry.atoms import StructureError
from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import copy_notes, drop_ligand_copy, incomplete_residues, read_protein
from src.graph import BOND_CUTOFF, FEATURE_COLUMN, MAX_CHARGE, RESIDUE_TYPES, BondType, Side
from tests.chemistry.protein_texts import alanine, assert_same_atoms, line
from tests.complexes import CIF_NAMES, mmcif

REAL = Path(os.environ["AIDD_REAL_DATA"]) / "pdbbind" if os.environ.get("AIDD_REAL_DATA") else None
needs_real_data = pytest.mark.skipif(REAL is None, reason="AIDD_REAL_DATA is not set")


@pytest.fixture
def read(tmp_path):
    def _read(text, name="some.pdb", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_protein(path, **options)

    return _read


def column(protein, name):
    return protein.atoms.features[:, FEATURE_COLUMN[name]].tolist()


def test_alanine_counted_by_hand(read):
    atoms = read(alanine(189)).atoms
    assert atoms.atom_names == ("C", "CA", "CB", "N", "O")
    assert atoms.residue_labels == ("A:ALA189",)
    assert atoms.features[:, 0].tolist() == [6, 6, 6, 7, 8]
    assert set(atoms.features[:, FEATURE_COLUMN["residue"]]) == {RESIDUE_TYPES.index("ALA")}
    bonds = dict(zip(zip(*atoms.bonds.tolist(), strict=True), atoms.bond_types.tolist(), strict=True))
    single, double = BondType.SINGLE, BondType.DOUBLE
    assert bonds == {(0, 1): single, (0, 4): double, (1, 2): single, (1, 3): single}


@pytest.mark.fault("H1")
@pytest.mark.parametrize(
    ("a", "b", "kept"),
    [
        ("  0.60", "  0.40", 1.0),
        ("  0.40", "  0.60", 2.0),
        ("  0.50", "  0.50", 1.0),
        ("", "", 1.0),
        ("", "  0.90", 1.0),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_altloc_with_the_highest_occupancy(read, a, b, kept, order):
    pair = [
        line("CB", xyz=(1.0, 0, 0), altloc="A", occupancy=a) + line("OG", xyz=(1, 0, 0), altloc="A", occupancy=a),
        line("CB", xyz=(2.0, 0, 0), altloc="B", occupancy=b) + line("OG", xyz=(2, 0, 0), altloc="B", occupancy=b),
    ]
    protein = read(line("CA") + "".join(pair[::order]))
    assert protein.atoms.pos[:, 0].tolist() == [0.0, kept, kept]
    assert protein.notes == ("1 residue with alternative locations, one conformer of each used",)


@pytest.mark.fault("H1")
def test_altloc_b_alone_is_kept(read):
    assert len(read(line("CA") + line("CB", altloc="B", occupancy="  0.30")).atoms) == 2


@pytest.mark.fault("H13")
def test_two_residues_at_one_number(read):
    serine = [
        line("CA", "SER", altloc="A", occupancy="  0.40"),
        line("OG", "SER", altloc="A", occupancy="  0.40"),
    ]
    valine = [
        line("CA", "VAL", altloc="B", occupancy="  0.60"),
        line("CG1", "VAL", altloc="B", occupancy="  0.60"),
    ]
    for text in (
        "".join(serine + valine),
        "".join(valine + serine),
        serine[0] + valine[0] + serine[1] + valine[1],
    ):
        assert read(text).atoms.residue_labels == ("A:VAL1",)
    plain = read(line("CA", "SER") + line("CA", "VAL", xyz=(1, 0, 0)))
    assert plain.atoms.residue_labels == ("A:SER1",)
    assert plain.notes == ("two residues at A:1: SER used, VAL dropped",)
    ion = read(line("CA") + line("ZN  ", " ZN", 7, element="ZN") + line("O", "HOH", 7, (3, 0, 0)))
    assert ion.atoms.residue_labels == ("A:ALA1", "A:HOH7", "A:ZN7")


@pytest.mark.fault("H2")
def test_insertion_codes_are_residues(read):
    text = alanine(52, 0.0, icode="B") + alanine(52, 9.0, icode="A") + alanine(52, 20.0)
    assert read(text).atoms.residue_labels == ("A:ALA52", "A:ALA52A", "A:ALA52B")


@pytest.mark.fault("H13")
def test_duplicates_count_once_but_copies_stay(read):
    protein = read(line("CA") + line("CA", xyz=(0.9, 0, 0)) + line("CB", xyz=(0, 1.5, 0)))
    assert protein.atoms.pos[:, 0].tolist() == [0.0, 0.0]
    assert protein.notes == ("1 duplicate atom, first used",)
    again = read(alanine(1) + alanine(2, 5.5) + alanine(1))
    assert again.notes == ("5 duplicate atoms, first used",)
    dimer = read(
        alanine(1, chain=" ") + alanine(2, 5.5, chain=" ") + alanine(1, 50, chain=" ") + alanine(2, 55.5, chain=" ")
    )
    assert dimer.atoms.residue_labels == (":ALA1", ":ALA2", ":ALA1", ":ALA2")
    assert dimer.notes == ()


@pytest.mark.fault("H3")
@pytest.mark.parametrize(
    "text",
    [
        "MODEL        1\n{}ENDMDL\nMODEL        2\n{}ENDMDL\n",
        "{}ENDMDL\n{}ENDMDL\n",
        "MODEL        1\n{}MODEL        2\n{}",
    ],
)
def test_first_model(read, text):
    protein = read(text.format(alanine(1), alanine(2)))
    assert protein.atoms.residue_labels == ("A:ALA1",)
    assert protein.notes == ("2 models, first used",)


@pytest.mark.fault("H11")
@pytest.mark.parametrize("end", ["END\n", "END   \n", "TER\n", "CONECT    1    2\n", "MASTER\n"])
def test_atoms_after_the_end_are_read(read, end):
    assert len(read(alanine(1) + end + alanine(2, 5.5)).atoms) == 10


@pytest.mark.fault("J5")
def test_order_of_the_file_does_not_matter(read):
    text = alanine(2, 5.5) + alanine(1) + alanine(1, 30.0, chain="B")
    lines = text.splitlines(keepends=True)
    mixed = [lines[number] for number in np.random.default_rng(0).permutation(len(lines))]
    assert_same_atoms(read(text).atoms, read("".join(mixed)).atoms)


@pytest.mark.fault("H10")
def test_every_side_is_typed(read):
    hetero = {"record": "HETATM"}
    backbone = "".join(line(n, "XYZ", 5, (9, i, 0), **hetero) for i, n in enumerate(("N", "CA", "C", "O", "C9")))
    text = (
        line("CA")
        + line("O", "HOH", 2, **hetero)
        + line("ZN  ", " ZN", 3, element="ZN", **hetero)
        + line("C1", "HEM", 4, **hetero)
        + line("N2", "HEM", 4, **hetero)
        + backbone
        + line("P", " DG", 6)
        + line("OP1", " DG", 6)
        + line("SE  ", "MSE", 7, element="SE", **hetero)
    )
    protein = read(text)
    sides = dict(
        zip(
            zip(protein.atoms.residue_index.tolist(), protein.atoms.atom_names, strict=True),
            column(protein, "side"),
            strict=True,
        )
    )
    assert [sides[key] for key in [(0, "CA"), (1, "O"), (2, "ZN"), (3, "C1"), (4, "C9"), (5, "P"), (6, "SE")]] == [
        Side.PROTEIN,
        Side.WATER,
        Side.ION,
        Side.COFACTOR,
        Side.PROTEIN,
        Side.PROTEIN,
        Side.PROTEIN,
    ]
    kinds = {
        int(i): RESIDUE_TYPES[k] for i, k in zip(protein.atoms.residue_index, column(protein, "residue"), strict=True)
    }
    assert list(kinds.values()) == ["ALA", "none", "none", "none", "other", "nucleotide", "MET"]
    zinc = protein.atoms.atom_names.index("ZN")
    assert column(protein, "charge")[zinc] == MAX_CHARGE + 2


@pytest.mark.fault("H10")
def test_hydrogens_and_deuterium_are_dropped(read):
    text = alanine() + line("H") + line("HA", element="D") + line("1HB ", element="") + line("HB2", element="")
    assert_same_atoms(read(text).atoms, read(alanine()).atoms)


@pytest.mark.fault("H10")
def test_unknown_element_is_0_with_a_note(read):
    protein = read(line("CA") + line("X1", "LIG", 2, record="HETATM"))
    assert column(protein, "element") == [6, 0]
    assert protein.notes == ("1 atoms of unknown element",)


@pytest.mark.parametrize(
    ("gap", "number", "chain", "bonded"),
    [
        (1.3, 2, "A", True),
        (2.9, 2, "A", True),
        (3.1, 2, "A", False),
        (2.9, 3, "A", False),
        (1.3, 5, "A", True),
        (2.9, 2, "B", False),
        (1.3, 2, "B", True),
    ],
)
def test_peptide_bond(read, gap, number, chain, bonded):
    """Stretched bonds stay while the envelope fades them; tight turns (i to i + 2, 2.8 Å) are none."""
    atoms = read(alanine(1) + line("N", number=number, xyz=(2.8 + gap, 0, 0), chain=chain)).atoms
    links = [pair for pair in atoms.bonds.T.tolist() if 5 in pair]
    assert links == ([[0, 5]] if bonded else [])


@pytest.mark.parametrize(("distance", "bonded"), [(2.05, True), (2.95, True), (3.05, False)])
def test_disulfide(read, distance, bonded):
    text = line("SG", "CYS", 10) + line("SG", "CYS", 80, (distance, 0, 0), chain="B")
    assert read(text).atoms.bonds.shape[1] == int(bonded)


def test_no_bond_is_longer_than_the_cutoff(read):
    atoms = read(line("CA") + line("CB", xyz=(BOND_CUTOFF + 0.01, 0, 0))).atoms
    assert atoms.bonds.shape == (2, 0)


def test_near_keeps_whole_residues(read):
    text = alanine(1) + alanine(2, 5.5) + alanine(3, 60.0) + line("O", "HOH", 9, (-4, 0, 0))
    point = np.array([[-3.0, 0.0, 0.0]])
    assert read(text, near=point, radius=3.0).atoms.residue_labels == ("A:ALA1", "A:HOH9")
    assert len(read(text, near=point, radius=3.0).atoms) == 6  # an atom at exactly the radius counts
    assert len(read(text, near=point, radius=2.99).atoms) == 1
    nothing = read(text, near=point + 500, radius=3.0).atoms
    assert len(nothing) == 0
    assert nothing.features.shape == (0, 9)


def test_crop_before_parsing_changes_nothing(read, monkeypatch):
    """Altlocs, hydrogens, copies and insertion codes, once cropped from the text and once parsed in full."""
    text = (
        alanine(1)
        + line("HA", xyz=(0.1, 0, 0))
        + alanine(2, 5.5)
        + line("CB", "SER", 3, (8, 0, 0), altloc="A", occupancy="  0.40")
        + line("CB", "SER", 3, (30, 0, 0), altloc="B", occupancy="  0.60")
        + alanine(4, 30)
        + alanine(4, 6.0, icode="A")
        + alanine(1, 80.0)
        + line("O", "HOH", 1, (2, 3, 1))
    )
    options = [{"near": np.array([[x, 0.0, 0.0]]), "radius": 6.0} for x in (0.0, 8.0, 30.0, 80.0)]
    cropped = [read(text, **each).atoms for each in options]
    monkeypatch.setattr(records, "_rows_to_parse", lambda table, tree, radius: np.ones(len(table.pos), dtype=bool))
    for atoms, each in zip(cropped, options, strict=True):
        assert_same_atoms(atoms, read(text, **each).atoms)
        assert len(atoms) > 0


@pytest.mark.fault("H14")
def test_large_assembly_near_a_ligand_is_fast(read):
    text = "".join(alanine(n % 9999 + 1, 5.5 * n % 9000.0, chain="ABCD"[n // 9999]) for n in range(20_000))
    begun = time.process_time()
    protein = read(text, near=np.zeros((1, 3)), radius=8.0)
    assert 0 < len(protein.atoms) < 200
    assert time.process_time() - begun < 5.0


@pytest.mark.fault("H6", "H7", "H16")
def test_line_forms(read):
    text = alanine(1) + alanine(2, 5.5)
    expected = read(text).atoms
    assert_same_atoms(expected, read(text.replace("\n", "\r\n")).atoms)
    assert_same_atoms(expected, read("".join(row[:54] + "\n" for row in text.splitlines())).atoms)
    assert_same_atoms(
        expected, read(text.replace("ATOM  ", "atom  ").replace("ALA", "ala").replace(" CA ", " ca ")).atoms
    )
    assert_same_atoms(expected, read("REMARK caf\xe9\n".encode("latin-1") + text.encode()).atoms)
    assert_same_atoms(
        expected,
        read("".join(row[:72] + "\xe9" + row[73:] + "\n" for row in text.splitlines()).encode("latin-1")).atoms,
    )
    assert_same_atoms(expected, read("".join(row[:6] + "*****" + row[11:] + "\n" for row in text.splitlines())).atoms)
    assert_same_atoms(expected, read("".join(row[:6] + "A0000" + row[11:] + "\n" for row in text.splitlines())).atoms)


@pytest.mark.fault("H6", "H7")
@pytest.mark.parametrize("chain", [" ", "a", "1"])
@pytest.mark.parametrize("number", [-5, 0, 9999])
def test_chains_and_numbers(read, chain, number):
    assert read(alanine(number, chain=chain)).atoms.residue_labels == (f"{chain.strip()}:ALA{number}",)


def test_positions_are_exact(read):
    assert read(line("CA", xyz=(9999.123, -999.456, 0.001))).atoms.pos.tolist() == [[9999.123, -999.456, 0.001]]


@pytest.mark.fault("H6")
def test_residue_numbers_beyond_their_four_columns_stay_apart(read):
    """Number 10000 and higher in a program that lets them run into the column of the insertion code."""
    rows = [row[:22] + f"{number}" + row[27:] for number in (10_000, 10_001) for row in alanine().splitlines()]
    rows = [row[:30] + f"{9.0 * (n // 5) + float(row[30:38]):8.3f}" + row[38:] for n, row in enumerate(rows)]
    assert read("\n".join(rows)).atoms.residue_labels == ("A:ALA10000", "A:ALA10001")


@pytest.mark.fault("H6")
@pytest.mark.parametrize(
    ("word", "number"),
    [("A000", 10_000), ("A00Z", 10_035), ("ZZZZ", 1_223_055), ("a000", 1_223_056), ("zzzz", 2_436_111)],
)
def test_residue_numbers_in_hybrid_36(read, word, number):
    """The first and the last of each letter case, https://cci.lbl.gov/hybrid_36/."""
    last, water = line("CA", number=9999), line("O", "HOH", 1, (3, 0, 0), chain="W", record="HETATM")
    atoms = read(last + water.replace("W   1", f"W{word}")).atoms
    assert atoms.residue_labels == ("A:ALA9999", f"W:HOH{number}")


@pytest.mark.fault("H6")
def test_residues_in_hybrid_36_are_told_apart_near_a_ligand_too(read):
    text = alanine(9999) + alanine(1, 5.5).replace("A   1", "AA000") + alanine(1, 11.0).replace("A   1", "AA001")
    whole = read(text).atoms
    assert whole.residue_labels == ("A:ALA9999", "A:ALA10000", "A:ALA10001")
    assert whole.bonds.shape[1] == 3 * 4 + 2  # neighbours by number have peptide bonds
    assert read(text, near=np.array([[16.0, 0, 0]]), radius=3.0).atoms.residue_labels == ("A:ALA10001",)


@pytest.mark.fault("H7")
def test_chains_of_two_letters_that_end_alike_are_both_kept(read):
    first, second = (
        "".join(row[:20] + letters + row[22:] for row in alanine(x=x).splitlines(keepends=True))
        for letters, x in (("AA", 0.0), ("BA", 30.0))
    )
    assert len(read(first + second).atoms) == 10


@pytest.mark.fault("H7")
@pytest.mark.parametrize(("record", "cause"), [("ATOM", "no ATOM or HETATM"), ("ATOM  ", "line 1, columns 31-38")])
def test_tabs_instead_of_columns_are_refused(read, record, cause):
    rows = [record + "\t".join(["", *row.split()[1:], 40 * " "]) for row in alanine().splitlines()]
    with pytest.raises(StructureError, match=cause):
        read("\n".join(rows))


@pytest.mark.fault("H12")
def test_residues_without_their_side_chains_are_read(read):
    rows = [row for number in range(3) for row in alanine(number, 5.5 * number).splitlines(keepends=True)]
    atoms = read("".join(row.replace("ALA", "TRP") for row in rows if " CB " not in row)).atoms
    assert len(atoms) == 12
    assert atoms.bonds.shape[1] == 3 * 3 + 2  # N-CA, CA-C, C=O, and the peptide bonds


def test_full_memory_is_not_blamed_on_the_file(read, monkeypatch):
    def fill(*_):
        raise MemoryError

    monkeypatch.setattr("src.chemistry.proteins.pdb_records", fill)
    with pytest.raises(MemoryError):
        read(alanine())


@pytest.mark.fault("H12")
def test_ca_only_model(read):
    assert len(read("".join(line("CA", number=n, xyz=(3.8 * n, 0, 0)) for n in range(5))).atoms) == 5


@pytest.mark.fault("H6", "H9")
@pytest.mark.parametrize(
    "columns",
    [
        (22, "    "),
        (22, "****"),
        (22, "A0 0"),
        (22, "Aa00"),
        (22, "A-01"),
        (30, "     nan"),
        (30, "     inf"),
        (30, "********"),
        (30, "     1e8"),
        (46, "        "),
        (30, "  1.0  2"),
    ],
)
def test_bad_numbers_name_the_line(read, columns):
    start, word = columns
    rows = alanine().splitlines()
    rows[2] = rows[2][:start] + word + rows[2][start + len(word) :]
    with pytest.raises(StructureError, match=r"some\.pdb: line 4"):
        read("REMARK\n" + "\n".join(rows))


@pytest.mark.fault("H4", "H5")
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "is empty"),
        ("REMARK nothing\nEND\n", "no ATOM or HETATM"),
        ("garbage\n" * 50, "no ATOM or HETATM"),
        (b"\x7fELF\0\0\0\0", "binary"),
        ("<!DOCTYPE html><html></html>", "HTML"),
        (line("O", "HOH"), "no protein or nucleic acid atoms, only HOH"),
        (
            line("C1", "LIG", record="HETATM") + line("CA  ", " CA", 2, element="CA"),
            "no protein or nucleic acid atoms",
        ),
        ("@<TRIPOS>MOLECULE\n", "MOL2 or SDF"),
        ("x\n\n\nM  END\n", "MOL2 or SDF"),
        (alanine()[:40], "line 1 ends before"),
        ("data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n1 C\n", "no column"),
        ("data_x\nloop_\n_atom_site.id\n'1 C\n", "quote"),
        ("loop_\n1 2 3\n_atom_site.id\n", "no column names"),
    ],
)
def test_what_is_no_protein_says_why(read, text, cause):
    with pytest.raises(StructureError, match=rf"some\.pdb: .*{cause}"):
        read(text)


@pytest.mark.fault("H5")
def test_nucleic_acid_alone_is_read(read):
    assert column(read(line("P", " DA")), "side") == [Side.PROTEIN]


@pytest.mark.fault("H17")
def test_truncation_never_crashes(read):
    text = alanine(1) + alanine(2, 5.5) + line("O", "HOH", 3, (3, 3, 3))
    for form in (text, mmcif(text)):
        for length in range(0, len(form), 23):
            try:
                num_atoms = len(read(form[:length]).atoms)
            except StructureError:
                num_atoms = 0
            assert num_atoms <= 11


RICH = (
    alanine(1)
    + alanine(2, 5.5, icode="A")
    + line("CB", "SER", 3, altloc="A", occupancy="  0.40")
    + line("CB", "SER", 3, (3, 0, 0), altloc="B", occupancy="  0.60")
    + line("H", "SER", 3)
    + line("ZN  ", " ZN", 9, element="ZN", record="HETATM")
    + line("O", "HOH", 10, record="HETATM")
)


@pytest.mark.fault("H8")
@pytest.mark.parametrize("name", ["x.pdb", "x.ent", "x.cif", "x.mmcif", "x.cif.gz", "x.txt"])
def test_pdb_and_mmcif_give_the_same_atoms_under_any_name(read, name):
    expected = read(RICH)
    for text in (RICH, mmcif(RICH)):
        data = gzip.compress(text.encode()) if name.endswith(".gz") else text
        found = read(data, name)
        assert_same_atoms(expected.atoms, found.atoms)
        assert expected.notes == found.notes
    near = np.zeros((1, 3))
    assert_same_atoms(read(RICH, near=near, radius=4.0).atoms, read(mmcif(RICH), near=near, radius=4.0).atoms)


@pytest.mark.fault("H3")
def test_mmcif_models_labels_and_deviations(read):
    two = mmcif(RICH).replace(
        "\n#\nloop_\n_x.y",
        "\n" + mmcif(alanine(7), "2").split("model_num\n")[1].split("\n#")[0] + "\n#\nloop_\n_x.y",
    )
    protein = read(two)
    assert "2 models, first used" in protein.notes
    assert_same_atoms(protein.atoms, read(RICH).atoms)
    labels = mmcif(alanine(7)).replace("auth_asym_id", "other").replace("auth_seq_id", "label_seq_id")
    assert read(labels).atoms.residue_labels == ("Z:ALA7",)
    assert read(mmcif(alanine()).replace("1.400", "1.400(3)")).atoms.pos[1].tolist() == [1.4, 0.0, 0.0]


@pytest.mark.fault("H9")
@pytest.mark.parametrize(("old", "new"), [("1.400", "nan"), ("1.400", "1e9"), ("1.400", "x"), (" 7 ", " seven ")])
def test_bad_mmcif_numbers_name_the_row(read, old, new):
    with pytest.raises(StructureError, match="row "):
        read(mmcif(alanine(7)).replace(old, new, 1))


@pytest.mark.fault("H9")
@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("1.400", "?", r"row 2 of _atom_site, column Cartn_x: '\?' is not a coordinate"),
        ("1.500", ".", r"row 5 of _atom_site, column Cartn_y: '\.' is not a coordinate"),
        ("1.400", "1.4.0", r"row 2 of _atom_site, column Cartn_x: '1\.4\.0' is not a coordinate"),
        (" 1.00 ", " full ", r"row 1 of _atom_site, column occupancy: 'full' is not an occupancy"),
        (" 7 ", " 7.5 ", r"row 1 of _atom_site: '7\.5' is not a residue number"),
    ],
)
def test_bad_mmcif_numbers_name_the_column_and_the_value(read, old, new, cause):
    with pytest.raises(StructureError, match=cause):
        read(mmcif(alanine(7)).replace(old, new, 1))


@pytest.mark.fault("H8")
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", [str, mmcif])
def test_line_ends_of_all_systems(read, form, end):
    assert_same_atoms(read(form(RICH)).atoms, read(form(RICH).replace("\n", end)).atoms)


def test_a_comment_inside_the_mmcif_table_does_not_end_it(read):
    rows = mmcif(RICH).splitlines(keepends=True)
    rows.insert(len(rows) - 8, "# a comment\n")
    assert_same_atoms(read(mmcif(RICH)).atoms, read("".join(rows)).atoms)


LABELS_ONLY = (
    "data_x\nloop_\n_atom_site.group_PDB\n_atom_site.type_symbol\n_atom_site.label_atom_id\n_atom_site.label_comp_id\n"
    "_atom_site.label_asym_id\n_atom_site.label_seq_id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\n"
    "ATOM N N GLY A 1 0.0 0.0 0.0\nATOM C CA GLY A 1 1.46 0.0 0.0\nATOM C C GLY A 1 2.0 1.42 0.0\n"
    "ATOM O O GLY A 1 1.25 2.39 0.0\nHETATM ZN ZN ZN B . 5.0 5.0 5.0\n"
    "HETATM O O HOH C . 9.0 0.0 0.0\nHETATM O O HOH C ? 9.0 3.0 0.0\n"
    "HETATM C C1 LIG D . 20.0 0.0 0.0\nHETATM O O1 LIG D . 21.2 0.0 0.0\n"
    "HETATM C C1 LIG D . 30.0 0.0 0.0\nHETATM O O1 LIG D . 31.2 0.0 0.0\n"
)


@pytest.mark.fault("H8")
def test_mmcif_without_author_columns_is_read(read):
    """Waters and ligands have no label_seq_id; those of one chain and one name are told apart by where they lie."""
    labels = ("A:GLY1", "B:ZN0", "C:HOH0", "C:HOH0", "D:LIG0", "D:LIG0")
    assert read(LABELS_ONLY).atoms.residue_labels == labels
    assert len(read(LABELS_ONLY).atoms) == 4 + 1 + 2 + 4
    for nothing in "?.":  # the columns are there, and hold nothing
        head, rows = LABELS_ONLY.replace("Cartn_z\n", "Cartn_z\n_atom_site.auth_seq_id\n").split("auth_seq_id\n")
        text = f"{head}auth_seq_id\n" + "".join(f"{row} {nothing}\n" for row in rows.splitlines())
        assert_same_atoms(read(LABELS_ONLY).atoms, read(text).atoms)


def test_mmcif_without_chains_is_read(read):
    """Open Babel writes none."""
    text = LABELS_ONLY.replace("_atom_site.label_asym_id\n", "")
    text = "".join(" ".join(w for n, w in enumerate(row.split()) if n != 4) + "\n" for row in text.splitlines())
    labels = [":GLY1", ":HOH0", ":HOH0", ":LIG0", ":LIG0", ":ZN0"]
    assert sorted(read(text).atoms.residue_labels) == labels


def test_a_byte_order_mark_hides_no_atom(read):
    assert_same_atoms(read(alanine()).atoms, read("\ufeff" + alanine()).atoms)


def test_an_amino_acid_without_a_number_is_refused(read):
    with pytest.raises(StructureError, match="row 2 of _atom_site: GLY has neither auth_seq_id nor label_seq_id"):
        read(LABELS_ONLY.replace("CA GLY A 1", "CA GLY A ."))


@pytest.mark.fault("H8")
def test_mmcif_keywords_in_capitals(read):
    """CIF does not tell capitals from small letters in data_, loop_ and names of columns."""
    text = mmcif(RICH)
    capitals = text.replace("data_", "DATA_").replace("loop_", "LOOP_").replace("_atom_site.", "_ATOM_SITE.")
    assert_same_atoms(read(text).atoms, read(capitals).atoms)
    mixed = text.replace("loop_", "LOOP_").replace("#\n", "#\nloop_\n_other.name\n'one' two\n#\n", 1)
    assert_same_atoms(read(text).atoms, read(mixed).atoms)
    names, values = CIF_NAMES.split(), mmcif(line("CA")).split("\n#\n")[1].splitlines()[-1].split()
    one = "# an atom\nDATA_x\n" + "".join(f"_atom_site.{n} {v}\n" for n, v in zip(names, values, strict=True))
    assert read(one).atoms.atom_names == ("CA",)


@pytest.mark.parametrize("form", [str, mmcif])
def test_whether_the_file_goes_on_behind_the_radius_is_known(read, form):
    text, near = form(alanine(1) + line("HA", xyz=(50, 0, 0)) + alanine(2, 5.5)), np.zeros((1, 3))
    assert [read(text, near=near, radius=radius).is_whole for radius in (4.0, 6.0)] == [False, True]
    assert read(text).is_whole
    assert not read(text, near=near + 90, radius=4.0).is_whole


def test_pdb_lines_with_control_characters(read):
    atoms = read(alanine(chain="\x1b")).atoms
    assert "\x1b" not in atoms.residue_labels[0]


LIGAND = {"C1": (0.0, 0, 0), "C2": (1.5, 0, 0), "O3": (2.2, 1.2, 0)}


@pytest.fixture
def ligand(read):
    return read(line("CA", number=50, xyz=(90, 0, 0)) + hetero(), near=np.zeros((1, 3)), radius=20.0).atoms


def hetero(shift=0.0, names=LIGAND, residue="LIG"):
    return "".join(line(name, residue, 77, (x + shift, y, z), record="HETATM") for (name, (x, y, z)) in names.items())


@pytest.mark.fault("H15")
@pytest.mark.parametrize(
    ("residue", "dropped"),
    [
        (hetero(), True),
        (hetero(0.4), True),
        (hetero(1.0), True),  # not one atom in place, but the same composition in the same place
        (hetero(8.0), False),  # another copy of the ligand, in another site
        (hetero(1.0, {"C1": (0, 0, 0), "N2": (1.5, 0, 0)}), False),  # another molecule that clashes
        (hetero(0.1, {"C1": (0, 0, 0), "N2": (1.5, 0, 0), "N3": (3, 0, 0)}), False),  # a third of it
        (line("CA", "SER", 77, (0, 0, 0)) + line("CB", "SER", 77, (1.5, 0, 0)), True),  # a peptide ligand
        (line("O", "HOH", 77, (2.2, 1.2, 0)), False),
    ],
)
def test_drop_ligand_copy(read, ligand, residue, dropped):
    protein = read(alanine(1, 30.0) + residue).atoms
    kept, labels = drop_ligand_copy(protein, ligand)
    assert labels == ([protein.residue_labels[1]] if dropped else [])
    assert len(kept) == (5 if dropped else len(protein))
    assert kept.bonds.shape[1] >= 4


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_copies_that_were_left_out_are_one_sentence(count):
    labels = [f"C:ALA{number}" for number in range(count)]
    notes = copy_notes(labels)
    assert len(notes) == min(count, 1)
    assert all(label in notes[0] for label in labels[:3])
    assert (count > 3) == any("40 residues" in note and "..." in note and "C:ALA3" not in note for note in notes)


def test_incomplete_residues_are_those_of_the_chain_that_lacks_atoms(read):
    cut = alanine(2, 20.0).splitlines(keepends=True)
    atoms = read(alanine(1) + "".join(cut[:-1]) + alanine(2, 40.0, chain="B") + line("O", "HOH", 9)).atoms
    assert [(one.chain, one.number) for one in incomplete_residues(atoms)] == [("A", 2)]
    assert incomplete_residues(read(alanine(), near=np.zeros((1, 3)) + 500).atoms) == frozenset()


@needs_real_data
def test_whole_protein_and_pocket_give_the_same_atoms():
    for path in sorted(REAL.glob("*/*_protein.pdb"))[:20]:
        code = path.parent.name
        ligand = read_ligand([path.parent / f"{code}_ligand.sdf", *path.parent.glob("*_ligand.mol2")])
        near = {"near": ligand.atoms.pos, "radius": 8.0}
        pocket = read_protein(path.parent / f"{code}_pocket.pdb", **near).atoms
        assert_same_atoms(read_protein(path, **near).atoms, pocket)
        assert len(pocket) > 50


@needs_real_data
def test_crop_changes_nothing_on_real_proteins(monkeypatch):
    paths = sorted(REAL.glob("*/*_protein.pdb"))[:6]
    points = [read_protein(path).atoms.pos[:30] for path in paths]
    cropped = [read_protein(path, near=near, radius=8.0).atoms for path, near in zip(paths, points, strict=True)]
    monkeypatch.setattr(records, "_rows_to_parse", lambda table, tree, radius: np.ones(len(table.pos), dtype=bool))
    for path, near, atoms in zip(paths, points, cropped, strict=True):
        assert_same_atoms(atoms, read_protein(path, near=near, radius=8.0).atoms)
