import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from src.chemistry import ligands as ligands_module
from src.chemistry.ligands import LigandError, iter_ligands, ligand_records, read_ligand
from src.graph import FEATURE_COLUMN, MAX_CHARGE, NODE_FEATURES, BondType, Hybridisation

# One molecule in the forms that files give it: neutral first, then protonated, deprotonated, other resonance.
SAME_MOLECULE = {
    "acid": ["CC(=O)O", "CC(=O)[O-]"],
    "amine": ["CCN", "CC[NH3+]"],
    "tertiary amine": ["CCN(C)CC", "CC[NH+](C)CC"],
    "zwitterion": ["NCC(=O)O", "[NH3+]CC(=O)[O-]"],
    "imidazole": ["Cc1c[nH]cn1", "Cc1c[nH]c[nH+]1", "Cc1cnc[n-]1"],
    "benzamidine": ["NC(=N)c1ccccc1", "NC(=[NH2+])c1ccccc1", "N=C(N)c1ccccc1"],
    "guanidine": ["CNC(=N)N", "CNC(N)=[NH2+]", "CN=C(N)N", "C[NH+]=C(N)N"],
    "phosphate": ["COP(=O)(O)O", "COP(=O)([O-])[O-]", "COP(O)(=O)[O-]"],
    "sulfonate": ["CCS(=O)(=O)O", "CCS(=O)(=O)[O-]"],
    "phenol": ["Oc1ccccc1", "[O-]c1ccccc1"],
    "thiol": ["CCS", "CC[S-]"],
    "sulfonamide": ["CCS(=O)(=O)N", "CCS(=O)(=O)[NH-]"],
    "tetrazole": ["Cc1nnn[nH]1", "Cc1nnn[n-]1", "Cc1nn[nH]n1"],
    "pyridine": ["Cc1ccncc1", "Cc1cc[nH+]cc1"],
}


def embedded(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    mol.SetProp("_Name", "test")
    return mol


def sdf(mol: Chem.Mol, **options) -> str:
    return Chem.MolToMolBlock(mol, **options) + "$$$$\n"


def written(folder, text: str, name: str = "ligand.sdf"):
    path = folder / name
    path.write_text(text)
    return path


def column(ligand, name):
    return ligand.atoms.features[:, FEATURE_COLUMN[name]].tolist()


def charges(ligand):
    return [value - MAX_CHARGE for value in column(ligand, "charge")]


def polar_only(mol: Chem.Mol) -> Chem.Mol:
    apolar = [a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() == 1 and a.GetNeighbors()[0].GetAtomicNum() == 6]
    edited = Chem.RWMol(mol)
    Chem.Kekulize(edited, clearAromaticFlags=True)
    for number in sorted(apolar, reverse=True):
        edited.RemoveAtom(number)
    for atom in edited.GetAtoms():
        atom.SetNoImplicit(False)
    Chem.SanitizeMol(edited)
    return edited.GetMol()


def by_atom(ligand):
    """The typed molecule whatever the order of its atoms: sorted features, and bonds between features."""
    rows = [tuple(row) for row in ligand.atoms.features.tolist()]
    pairs = zip(*ligand.atoms.bonds.tolist(), ligand.atoms.bond_types.tolist(), strict=True)
    return sorted(rows), sorted((*sorted((rows[i], rows[j])), kind) for i, j, kind in pairs)


@pytest.mark.fault("I1")
@pytest.mark.parametrize("forms", SAME_MOLECULE.values(), ids=SAME_MOLECULE.keys())
def test_hydrogens_and_protonation_do_not_matter(tmp_path, forms):
    seen = []
    for smiles in forms:
        mol = embedded(smiles)
        for hydrogens in (mol, Chem.RemoveHs(mol), polar_only(mol)):
            seen.append(by_atom(read_ligand([written(tmp_path, sdf(hydrogens))])))
            seen.append(by_atom(read_ligand([written(tmp_path, sdf(hydrogens, forceV3000=True))])))
    assert all(each == seen[0] for each in seen[1:])


@pytest.mark.parametrize(
    ("smiles", "expected", "donors", "acceptors"),
    [
        ("CC(=O)O", [0, 0, -1, -1], [], [2, 3]),
        ("CCN", [0, 0, 1], [2], []),
        ("C[N+](C)(C)C", [0, 1, 0, 0, 0], [], []),
        ("CC(=O)NC", [0, 0, 0, 0, 0], [3], [2]),
        ("Nc1ccccc1", [0] * 7, [0], []),
        ("c1ccncc1", [0] * 6, [], [3]),
        ("c1cc[nH]c1", [0] * 5, [3], []),
        ("c1ccoc1", [0] * 5, [], []),
        ("c1c[nH]cn1", [0] * 5, [2, 4], [2, 4]),
        ("Cn1ccnc1", [0] * 6, [], [4]),
        ("NC(=N)C", [1, 0, 1, 0], [0, 2], []),
        ("CNC(=N)N", [0, 0, 0, 1, 1], [1, 3, 4], []),
        ("CC(=O)NC(=N)N", [0] * 7, [3, 5, 6], [2, 5]),
        ("COP(=O)(O)O", [0, 0, 0, -1, -1, -1], [], [1, 3, 4, 5]),
        ("COP(=O)(OC)OC", [0] * 8, [], [1, 3, 4, 6]),
        ("CS(=O)(=O)C", [0] * 5, [], [2, 3]),
        ("CCS(=O)(=O)O", [0, 0, 0, -1, -1, -1], [], [3, 4, 5]),
        ("CS(=O)(=O)N", [0] * 5, [4], [2, 3]),
        ("CC[N+](=O)[O-]", [0] * 5, [], [3, 4]),
        ("C[n+]1ccccc1", [0, 1, 0, 0, 0, 0, 0], [], []),
        ("[O-][n+]1ccccc1", [-1, 1, 0, 0, 0, 0, 0], [], [0]),
        ("CC#N", [0, 0, 0], [], [2]),
        ("CC(=S)C", [0] * 4, [], [2]),
        ("CCO", [0, 0, 0], [2], [2]),
    ],
)
def test_charges_donors_and_acceptors(tmp_path, smiles, expected, donors, acceptors):
    ligand = read_ligand([written(tmp_path, sdf(embedded(smiles)))])
    assert charges(ligand) == expected
    assert np.flatnonzero(column(ligand, "donor")).tolist() == donors
    assert np.flatnonzero(column(ligand, "acceptor")).tolist() == acceptors


def test_atoms_of_a_ligand(tmp_path):
    mol = embedded("C#CC(=O)Oc1ccccc1Cl")
    ligand = read_ligand([written(tmp_path, sdf(mol))])
    heavy = [a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() > 1]
    np.testing.assert_allclose(ligand.atoms.pos, mol.GetConformer().GetPositions()[heavy], atol=6e-5)
    assert ligand.atoms.features.dtype == np.uint8
    assert ligand.atoms.features.shape == (12, len(NODE_FEATURES))
    assert ligand.atoms.atom_names[0] == "C1"
    assert ligand.atoms.atom_names[-1] == "Cl12"
    assert (ligand.name, ligand.atoms.residue_labels, ligand.read_as) == ("test", ("test",), "sdf")
    assert column(ligand, "hybridisation")[:3] == [Hybridisation.SP, Hybridisation.SP, Hybridisation.SP2]
    assert column(ligand, "aromatic") == column(ligand, "ring") == [0] * 5 + [1] * 6 + [0]
    bonds = dict(zip(zip(*ligand.atoms.bonds.tolist(), strict=True), ligand.atoms.bond_types.tolist(), strict=True))
    assert bonds[0, 1] == BondType.TRIPLE
    assert bonds[2, 3] == BondType.DOUBLE
    assert bonds[4, 5] == BondType.SINGLE
    assert bonds[5, 6] == BondType.AROMATIC
    assert list(bonds) == sorted(bonds)
    assert Chem.CanonSmiles(ligand.smiles) == Chem.CanonSmiles("C#CC(=O)Oc1ccccc1Cl")


@pytest.mark.parametrize("symbol", ["CL", "Cl", "cl", "BR", "br"])
def test_halogens_in_any_letter_case(tmp_path, symbol):
    usual = symbol.capitalize()
    mol = embedded(f"CC{usual}")
    number = {"Cl": 17, "Br": 35}[usual]
    for text in (sdf(mol), sdf(mol, forceV3000=True)):
        ligand = read_ligand([written(tmp_path, text.replace(f" {usual} ", f" {symbol} "))])
        assert column(ligand, "element") == [6, 6, number]
    ligand = read_ligand([written(tmp_path, MOL2.replace("Cl\n", f"{symbol}\n"), "x.mol2")])
    assert column(ligand, "element") == [6, 6, number]


MOL2 = """@<TRIPOS>MOLECULE
chloroethane
3 2 1 0 0
SMALL
NO_CHARGES

@<TRIPOS>ATOM
1 C1 0.0 0.1 0.2 C.3
2 C2 1.5 0.0 0.0 C.3
3 CL 2.1 1.6 0.3 Cl
@<TRIPOS>BOND
1 1 2 1
2 2 3 1
"""


@pytest.mark.fault("I5")
def test_mol2_without_hydrogens_is_no_radical(tmp_path):
    ligand = read_ligand([written(tmp_path, MOL2.replace("\n", "\r\n"), "x.mol2")])
    assert (ligand.smiles, ligand.read_as, ligand.name) == ("CCCl", "mol2", "chloroethane")


@pytest.mark.fault("I5", "I7")
@pytest.mark.parametrize("kind", ["Du", "Zz"])
def test_unknown_mol2_type_is_element_0(tmp_path, kind):
    ligand = read_ligand([written(tmp_path, MOL2.replace("Cl\n", f"{kind}\n"), "x.mol2")])
    assert column(ligand, "element") == [6, 6, 0]


@pytest.mark.fault("I7")
@pytest.mark.parametrize("symbol", ["*", "X", "R", "Du"])
def test_unknown_sdf_element_is_0(tmp_path, symbol):
    text = sdf(embedded("CCCl")).replace(" Cl ", f" {symbol:<3}")
    assert column(read_ligand([written(tmp_path, text)]), "element") == [6, 6, 0]


@pytest.mark.fault("I7")
@pytest.mark.parametrize("smiles", ["CB(O)O", "C[Si](C)(C)C", "C[Se]C", "[2H]C([2H])O", "[13CH4]", "OB1OCc2ccccc12"])
def test_rare_elements_and_isotopes(tmp_path, smiles):
    ligand = read_ligand([written(tmp_path, sdf(embedded(smiles)))])
    assert 1 not in column(ligand, "element")
    assert "13" not in ligand.smiles
    assert ligand.read_as == "sdf"


def five_valent() -> str:
    """Neopentane with a fifth bond to its middle."""
    mol = Chem.RWMol(Chem.RemoveHs(embedded("CC(C)(C)C")))
    mol.AddAtom(Chem.Atom("C"))
    mol.AddBond(1, 5, Chem.BondType.SINGLE)
    mol.GetConformer().SetAtomPosition(5, [1.0, 1.0, 1.0])
    mol.UpdatePropertyCache(strict=False)
    return Chem.MolToMolBlock(mol, kekulize=False) + "$$$$\n"


def neopentane_mol2(shift: float = 0.0) -> str:
    """The atoms of five_valent without the one too many, in the same place."""
    pos = Chem.MolFromMolBlock(five_valent(), sanitize=False).GetConformer().GetPositions()[:5] + np.array(
        [shift, 0, 0]
    )
    atoms = [f"{n} C{n} {x:.4f} {y:.4f} {z:.4f} C.3" for n, (x, y, z) in enumerate(pos.tolist(), start=1)]
    bonds = [f"{n} 2 {other} 1" for n, other in enumerate((1, 3, 4, 5), start=1)]
    head = ["@<TRIPOS>MOLECULE", "neopentane", "5 4", "SMALL", "NO_CHARGES", "", "@<TRIPOS>ATOM"]
    return "\n".join([*head, *atoms, "@<TRIPOS>BOND", *bonds, ""])


@pytest.mark.fault("I4", "I6")
def test_roads_are_tried_in_order(tmp_path):
    bad, good = written(tmp_path, five_valent()), written(tmp_path, neopentane_mol2(), "x.mol2")
    ligand = read_ligand([bad, good])
    assert ligand.read_as == "mol2"
    assert any("valence" in note for note in ligand.notes)
    assert any("disagrees" in note for note in ligand.notes)
    alone = read_ligand([bad])
    assert alone.read_as == "partial sanitisation of the sdf"
    assert len(alone.atoms) == 6
    assert column(alone, "element") == [6] * 6
    sound = Chem.RWMol(Chem.MolFromMolBlock(five_valent(), sanitize=False))
    sound.RemoveAtom(5)
    ligand = read_ligand([good, written(tmp_path, sdf(sound, kekulize=False), "y.sdf")])
    assert (ligand.read_as, ligand.notes) == ("sdf", ())


def test_four_valent_nitrogen_gets_its_charge(tmp_path):
    mol = embedded("CC[NH3+]")
    text = "\n".join(line for line in sdf(mol).split("\n") if not line.startswith("M  CHG"))
    ligand = read_ligand([written(tmp_path, text)])
    assert charges(ligand) == [0, 0, 1]
    assert ligand.read_as == "sdf"
    assert ligand.notes == ("1 four-valent nitrogens charged +1",)


@pytest.mark.fault("I9")
def test_all_roads_failed_names_each(tmp_path):
    paths = [
        written(tmp_path, "garbage\n"),
        written(tmp_path, "@<TRIPOS>MOLECULE\n", "x.mol2"),
        tmp_path / "no.sdf",
    ]
    with pytest.raises(LigandError) as error:
        read_ligand(paths)
    assert all(name in str(error.value) for name in ("ligand.sdf", "x.mol2", "no.sdf"))
    with pytest.raises(LigandError, match="no ligand file"):
        read_ligand([])


@pytest.mark.fault("I8")
def test_largest_fragment_is_kept(tmp_path):
    mol = Chem.CombineMols(embedded("[Na+]"), embedded("CC(=O)[O-]"))
    ligand = read_ligand([written(tmp_path, sdf(mol))])
    assert column(ligand, "element") == [6, 6, 8, 8]
    assert any("2 fragments" in note for note in ligand.notes)


@pytest.mark.fault("I2")
@pytest.mark.parametrize("scale", [(0, 0, 0), (1, 1, 0)])
def test_drawings_are_refused(tmp_path, scale):
    mol = embedded("CCCC")
    flat = mol.GetConformer().GetPositions() * np.array(scale)
    for number, xyz in enumerate(flat):
        mol.GetConformer().SetAtomPosition(number, xyz)
    with pytest.raises(LigandError, match="no 3D coordinates"):
        read_ligand([written(tmp_path, sdf(mol))])


@pytest.mark.fault("I9")
@pytest.mark.parametrize("value", ["nan", "inf", "*****", "1e9", "1000000.00"])
def test_bad_coordinates_are_refused(tmp_path, value):
    text = sdf(embedded("CCO")).split("\n")
    text[4] = f"{value:>10}" + text[4][10:]
    with pytest.raises(LigandError, match=r"ligand\.sdf"):
        read_ligand([written(tmp_path, "\n".join(text))])


@pytest.mark.fault("I9", "I12")
@pytest.mark.parametrize(
    ("name", "text", "cause"),
    [
        ("a.sdf", "", "empty"),
        ("a.sdf", "$$$$\n", "cannot read"),
        ("a.sdf", "hello\nworld\n", "neither SDF nor MOL2"),
        ("a.pdb", "ATOM\n", "bond orders"),
        ("a.pdbqt", "ROOT\n", "bond orders"),
        ("a.smi", "CCO\n", "bond orders"),
        ("a.sdf", "HETATM    1  C1  LIG A   1       0.000   0.000   0.000\n", "bond orders"),
        ("a.sdf", "x\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n$$$$\n", "cannot read"),
        ("a.sdf", "x\n\n\n  ²  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n$$$$\n", "cannot read"),
        ("a.mol2", "@<TRIPOS>MOLECULE\nx\n 0 0\n", "cannot read"),
    ],
)
def test_what_is_no_ligand_says_why(tmp_path, name, text, cause):
    with pytest.raises(LigandError, match=cause):
        read_ligand([written(tmp_path, text, name)])


def test_only_hydrogens_is_no_ligand(tmp_path):
    with pytest.raises(LigandError, match="no heavy atoms"):
        read_ligand([written(tmp_path, sdf(embedded("[H][H]")))])


@pytest.mark.fault("I9")
def test_truncated_sdf_gives_errors_only(tmp_path):
    text = sdf(embedded("CC(=O)Nc1ccc(O)cc1"))
    for length in range(0, len(text) - 20, 20):
        with pytest.raises(LigandError):
            read_ligand([written(tmp_path, text[:length])])


@pytest.mark.fault("I10")
def test_single_ion_and_large_molecule(tmp_path):
    ion = read_ligand([written(tmp_path, sdf(embedded("[Zn+2]")))])
    assert charges(ion) == [2]
    mol = Chem.MolFromSmiles("C" * 1200)
    conformer = Chem.Conformer(1200)
    for number in range(1200):
        conformer.SetAtomPosition(number, [1.3 * number, 0.5 * (number % 2), 0.1 * (number % 3)])
    mol.AddConformer(conformer)
    assert len(read_ligand([written(tmp_path, sdf(mol))]).atoms) == 1200


@pytest.mark.fault("I3")
@pytest.mark.parametrize("packed", [False, True])
def test_every_molecule_of_an_sdf_in_place(tmp_path, packed):
    text = sdf(embedded("CCO")) + "broken\n\n\nnonsense\n$$$$\n" + five_valent() + sdf(embedded("CCN"))
    path = tmp_path / "many.sdf.gz"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = list(iter_ligands(path))
    assert [isinstance(each, LigandError) for each in found] == [False, True, False, False]
    assert "molecule 2" in str(found[1])
    assert found[2].read_as == "partial sanitisation of the sdf"
    assert found[3].smiles == "CCN"
    first = read_ligand([path])
    assert first.smiles == "CCO"
    assert any("several molecules" in note for note in first.notes)


@pytest.mark.fault("I3")
@pytest.mark.parametrize("lost", ["$$$$", "M  END and $$$$", "second half"])
def test_a_record_that_has_lost_its_end_keeps_the_next_one(tmp_path, lost):
    first, second = sdf(embedded("CCO")), sdf(embedded("CCN"))
    cut = {"$$$$": first.replace("$$$$\n", ""), "M  END and $$$$": first.replace("M  END\n$$$$\n", "")}
    path = written(tmp_path, cut.get(lost, "\n".join(first.split("\n")[:8]) + "\n") + second + second)
    found = [each if isinstance(each, LigandError) else each.smiles for each in iter_ligands(path)]
    assert len(found) == 3
    assert found[1:] == ["CCN", "CCN"]
    if lost == "$$$$":
        assert found[0] == "CCO"
        assert any("several molecules" in note for note in read_ligand([path]).notes)
    else:
        assert "molecule 1" in str(found[0])


def test_a_molecule_in_a_data_field_is_no_record(tmp_path):
    inner = Chem.MolToMolBlock(embedded("CCN"))
    text = sdf(embedded("CCO")).replace("$$$$", f">  <template>\n{inner}\n$$$$") + sdf(embedded("CCS"))
    assert [ligand.smiles for ligand in iter_ligands(written(tmp_path, text))] == ["CCO", "CCS"]


@pytest.mark.fault("I4")
@pytest.mark.parametrize("twin", ["ligand.mol2", "ligand.mol2.gz"])
def test_the_only_molecule_of_a_file_is_read_from_its_twin_as_in_training(tmp_path, twin):
    path = written(tmp_path, five_valent())
    text = neopentane_mol2().encode()
    (tmp_path / twin).write_bytes(gzip.compress(text) if twin.endswith(".gz") else text)
    (ligand,) = iter_ligands(path)
    trained = read_ligand([path, tmp_path / twin])
    assert by_atom(ligand) == by_atom(trained)
    assert (ligand.read_as, ligand.notes) == (
        "mol2",
        (f"{twin}, which lies beside ligand.sdf, was read", *trained.notes),
    )
    written(tmp_path, five_valent() + five_valent())
    assert [each.read_as for each in iter_ligands(path)] == ["partial sanitisation of the sdf"] * 2


@pytest.mark.fault("I13")
def test_radicals_of_the_file_are_reported_and_typed_as_the_molecule_with_hydrogens(tmp_path):
    mol = Chem.RemoveHs(embedded("CC(C)O"))
    text = sdf(mol)
    radical = read_ligand([written(tmp_path, text.replace("M  END", "M  RAD  1   2   2\nM  END"))])
    plain = read_ligand([written(tmp_path, text)])
    assert by_atom(radical) == by_atom(plain)
    assert (radical.notes, plain.notes) == (("1 radical atoms given hydrogens",), ())


def test_a_twin_that_is_no_better_changes_nothing(tmp_path):
    path = written(tmp_path, five_valent())
    written(tmp_path, "@<TRIPOS>MOLECULE\nx\n 0 0\n", "ligand.mol2")
    (ligand,) = iter_ligands(path)
    assert ligand.read_as == "partial sanitisation of the sdf"
    assert not any("beside" in note for note in ligand.notes)
    written(tmp_path, sdf(embedded("CCO")).replace("M  END", ""))
    written(tmp_path, sdf(embedded("CCO"))[:150], "ligand.sdf")
    (error,) = iter_ligands(path)
    assert "ligand.sdf" in str(error)


@pytest.mark.parametrize("shift", [0.2, 3.0])
def test_a_twin_of_another_pose_is_not_read(tmp_path, shift):
    path = written(tmp_path, five_valent())
    twin = written(tmp_path, neopentane_mol2(shift), "ligand.mol2")
    (ligand,) = iter_ligands(path)
    assert ligand.read_as == "partial sanitisation of the sdf"
    assert not any("beside" in note for note in ligand.notes)
    trained = read_ligand([path, twin])
    assert by_atom(trained) == by_atom(ligand)
    assert any("ligand.mol2: has another pose than ligand.sdf, not used" in note for note in trained.notes)


def test_a_file_that_cannot_be_read_is_not_replaced_by_its_twin(tmp_path):
    """Whether the twin is the same pose cannot be known; in training the files of a folder are one ligand."""
    path = written(tmp_path, five_valent()[:200])
    twin = written(tmp_path, neopentane_mol2(), "ligand.mol2")
    (error,) = iter_ligands(path)
    assert isinstance(error, LigandError)
    assert read_ligand([path, twin]).read_as == "mol2"


@pytest.mark.fault("I4")
def test_an_aromatic_nitrogen_without_its_hydrogen_gets_it(tmp_path):
    mol = Chem.RemoveHs(embedded("c1cc[nH]c1"))
    text = Chem.MolToMolBlock(mol, kekulize=False).replace("MRV_IMPLICIT_H", "LOST") + "$$$$\n"
    ligand = read_ligand([written(tmp_path, text)])
    assert (ligand.read_as, ligand.smiles) == ("hydrogens added to the sdf", "c1cc[nH]c1")
    assert ligand.notes[0] == "1 aromatic nitrogens given the hydrogen that the file lacks"


@pytest.mark.fault("I4")
def test_an_aromatic_ring_without_a_kekule_structure_is_read_by_the_last_road(tmp_path):
    mol = Chem.RemoveHs(embedded("c1cc[nH]c1"))
    text = Chem.MolToMolBlock(mol, kekulize=False).replace(" N  ", " C  ") + "$$$$\n"
    ligand = read_ligand([written(tmp_path, text)])
    assert ligand.read_as == "partial sanitisation of the sdf"
    assert any("kekul" in note.lower() for note in ligand.notes)
    assert column(ligand, "ring") == [1] * 5


@pytest.mark.fault("I7")
def test_a_metal_complex_has_its_metal(tmp_path):
    atoms = [("Pt", 0.0, 0.0), ("Cl", 2.3, 0.0), ("Cl", 0.0, 2.3), ("N", -2.0, 0.1), ("N", 0.0, -2.0)]
    lines = ["cisplatin", "", "", "  5  4  0  0  0  0  0  0  0  0999 V2000"]
    lines += [f"{x:10.4f}{y:10.4f}{0.1 * n:10.4f} {symbol:<3} 0  0" for n, (symbol, x, y) in enumerate(atoms)]
    lines += [*(f"  1  {other}  1  0" for other in range(2, 6)), "M  END", "$$$$", ""]
    ligand = read_ligand([written(tmp_path, "\n".join(lines))])
    assert sorted(column(ligand, "element")) == [7, 7, 17, 17, 78]
    assert ligand.atoms.bonds.shape[1] == 4


@pytest.mark.fault("I11")
def test_a_dense_graph_is_no_molecule(tmp_path):
    atoms = [f"{n} C{n} {0.9 * n} {n % 7} {n % 5}.5 C.3" for n in range(1, 101)]
    bonds = [f"{n} {i} {j} 1" for n, (i, j) in enumerate(itertools.combinations(range(1, 101), 2), start=1)]
    head = ["@<TRIPOS>MOLECULE", "dense", "100 4950", "SMALL", "NO_CHARGES", "", "@<TRIPOS>ATOM"]
    text = "\n".join([*head, *atoms, "@<TRIPOS>BOND", *bonds, ""])
    with pytest.raises(LigandError, match="4,950 bonds between 100 atoms; no molecule has more than 3"):
        read_ligand([written(tmp_path, text, "x.mol2")])


@pytest.mark.fault("I11")
@pytest.mark.parametrize("v3000", [False, True])
def test_a_dense_graph_of_an_sdf_is_not_given_to_rdkit(tmp_path, v3000):
    """Of 45 atoms, since the counts of V2000 end at 999; RDKit would look for its rings for minutes."""
    mol = Chem.RWMol(Chem.RemoveHs(embedded("C" * 45)))
    for i, j in itertools.combinations(range(45), 2):
        if not mol.GetBondBetweenAtoms(i, j):
            mol.AddBond(i, j, Chem.BondType.SINGLE)
    mol.UpdatePropertyCache(strict=False)
    text = sdf(mol, kekulize=False, forceV3000=v3000)
    with pytest.raises(LigandError, match=r"99\d bonds between 4\d atoms; no molecule has more than 3"):
        read_ligand([written(tmp_path, text)])


@pytest.mark.fault("I10")
def test_a_peptide_of_150_atoms(tmp_path):
    mol = Chem.MolFromSequence("ACDEFGHIKLMNPQRSTVWY")
    conformer = Chem.Conformer(mol.GetNumAtoms())
    for number in range(mol.GetNumAtoms()):
        conformer.SetAtomPosition(number, [1.3 * number, 0.5 * (number % 2), 0.1 * (number % 3)])
    mol.AddConformer(conformer)
    ligand = read_ligand([written(tmp_path, sdf(mol))])
    assert len(ligand.atoms) == mol.GetNumAtoms() > 150
    assert ligand.read_as == "sdf"


@pytest.mark.fault("K6")
def test_a_bomb_that_never_shows_what_it_is_stops_at_the_cap(tmp_path, monkeypatch):
    monkeypatch.setattr(ligands_module, "MAX_MOLECULE_BYTES", 100_000)
    path = tmp_path / "bomb.sdf.gz"
    path.write_bytes(gzip.compress((b"A" * 50_000 + b"\n") * 900))
    taken = []
    real = ligands_module.iter_lines
    monkeypatch.setattr(ligands_module, "iter_lines", lambda p: (taken.append(line) or line for line in real(p)))
    with pytest.raises(LigandError, match="neither SDF nor MOL2"):
        read_ligand([path])
    assert len(taken) < 5


@pytest.mark.fault("I3", "I5")
def test_every_molecule_of_a_mol2(tmp_path):
    path = written(tmp_path, "# comment\n" + MOL2 + MOL2.replace("chloroethane", "second"), "x.mol2")
    assert [ligand.name for ligand in iter_ligands(path)] == ["chloroethane", "second"]


@pytest.mark.fault("I9")
def test_stream_that_breaks_off_ends_in_an_error(tmp_path):
    packed = gzip.compress((sdf(embedded("CCO")) * 200).encode())
    path = tmp_path / "cut.sdf.gz"
    path.write_bytes(packed[:-12])
    found = list(iter_ligands(path))
    assert found[0].smiles == "CCO"
    assert isinstance(found[-1], LigandError)
    assert sum(isinstance(each, LigandError) for each in found) == 1


@pytest.mark.fault("I9")
def test_missing_file_is_raised(tmp_path):
    with pytest.raises(LigandError, match="no such file"):
        list(iter_ligands(tmp_path / "missing.sdf"))


@pytest.mark.fault("K6")
def test_endless_molecule_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(ligands_module, "MAX_MOLECULE_BYTES", 1000)
    with pytest.raises(LigandError, match="more than 1,000 bytes"):
        read_ligand([written(tmp_path, "\n\n\n  1  0  0     0  0            999 V2000\n" + "x\n" * 2000)])


@pytest.mark.fault("I14")
def test_names_are_safe(tmp_path):
    mol = embedded("CCO")
    mol.SetProp("_Name", "evil\x1b[2J\x07 name")
    assert read_ligand([written(tmp_path, sdf(mol))]).name == "evil [2J name"
    mol.SetProp("_Name", "")
    assert read_ligand([written(tmp_path, sdf(mol), "ünnamed lig.sdf")]).name == "ünnamed lig"


@pytest.mark.parametrize("name", ["poses.txt", "poses.lst", "poses.csv"])
def test_a_list_is_told_what_a_list_lacks(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a.sdf\nb.sdf\n")
    with pytest.raises(LigandError, match="holds no coordinates; give the SDF or MOL2 files themselves"):
        next(iter(ligand_records(tmp_path / name)))
