"""Which molecule of a complex is the ligand."""

from __future__ import annotations

import re

import pytest
from rdkit import Chem

from src.chemistry.atoms import StructureError
from src.chemistry.complex_files import find_ligand
from tests.complex_texts import as_mmcif, complex_text, ligand_lines, molecule
from tests.complexes import ALA, GLY, RESIDUES

BENZAMIDE = molecule("NC(=O)c1ccccc1")
FAR = (40.0, 0.0, 0.0)


def found(text: str, word: str = "") -> str:
    return find_ligand(text.encode(), word).name


@pytest.mark.parametrize("name", ["HOH", "SO4", "GOL", "NAG", "BMA"])
def test_what_is_in_most_crystals_is_no_ligand(name: str) -> None:
    text = complex_text(ligand_lines(BENZAMIDE), ligand_lines(molecule("CCO"), name=name, chain="A", shift=FAR))
    assert found(text) == "B:LIG:1"
    with pytest.raises(StructureError, match="no molecule can be the ligand"):
        find_ligand(complex_text(ligand_lines(molecule("CCO"), name="SO4", shift=FAR)).encode())


def test_a_cofactor_is_the_ligand_where_nothing_else_is_and_size_decides_nothing() -> None:
    haem = ligand_lines(molecule("c1ccc2ccccc2c1CCCCCCCCCC"), name="HEM", chain="A", shift=FAR)
    assert found(complex_text(haem, ligand_lines(BENZAMIDE))) == "B:LIG:1"
    assert found(complex_text(haem)) == "A:HEM:1"


def test_several_are_listed_with_the_option_that_chooses() -> None:
    text = complex_text(ligand_lines(BENZAMIDE), ligand_lines(molecule("CCO"), name="XYZ", chain="C", shift=FAR))
    message = r"B:LIG:1 \(9 heavy atoms\), C:XYZ:1 \(3 heavy atoms\); choose, as --ligand_residue B:LIG:1"
    with pytest.raises(StructureError, match=message):
        find_ligand(text.encode())
    assert found(text, "C") == "C:XYZ:1"


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("word", ["B:LIG:701", "lig", "b", "b:lig", "LIG:701", "701", "b::701", ":Lig:"])
def test_any_part_of_its_name_chooses(word: str, labels: bool) -> None:
    other = ligand_lines(molecule("CCO"), name="XYZ", chain="C", number=702, shift=FAR)
    text = complex_text(ligand_lines(BENZAMIDE, number=701), other)
    assert found(text, word) == "B:LIG:701"
    assert found(as_mmcif(text, labels=labels), word) == "B:LIG:701"


def test_label_identifiers_choose_as_author_identifiers_do() -> None:
    text = as_mmcif(complex_text(ligand_lines(BENZAMIDE, chain="A", number=701)), labels=True)
    assert found(text, "L701") == found(text, "A") == found(text, "A:LIG:701") == "A:LIG:701"
    long = text.replace(" A 1\n", " Heavy-chain.1 1\n")
    assert found(long, "heavy-CHAIN.1:lig") == "Heavy-chain.1:LIG:701"


def test_a_word_that_names_nothing_lists_what_there_is() -> None:
    with pytest.raises(StructureError, match=r"no molecule is 'XYZ'.*B:LIG:1"):
        find_ligand(complex_text(ligand_lines(BENZAMIDE)).encode(), "XYZ")


def test_an_additive_is_the_ligand_where_it_is_named() -> None:
    text = complex_text(ligand_lines(BENZAMIDE), ligand_lines(molecule("OCCO"), name="EDO", chain="C", shift=FAR))
    assert found(text, "EDO") == "C:EDO:1"


def test_a_residue_of_a_chain_is_none() -> None:
    unknown = ("UNK", "A", 352, [(name, element, x + 60.0, y, z) for name, element, x, y, z in ALA[3]])
    text = complex_text(ligand_lines(BENZAMIDE), residues=[*RESIDUES, unknown])
    assert found(text) == "B:LIG:1"
    # Without the names of a backbone, but bonded to that of the residue before it.
    carbon = GLY[3][2]
    chromophore = ("CRX", "A", 31, [("N1", "N", carbon[2] + 1.0, 0.0, 9.9), ("C1", "C", carbon[2] + 2.3, 0.0, 9.9)])
    assert found(complex_text(ligand_lines(BENZAMIDE, shift=FAR), residues=[*RESIDUES, chromophore])) == "B:LIG:1"


def test_residues_that_are_bonded_are_one_molecule() -> None:
    mol = molecule("NCC(=O)NCC(=O)N")
    lines = ligand_lines(mol, shift=FAR)
    parts = [line[:17] + ("AAA B   1" if number < 4 else "BBB B   2") + line[26:] for number, line in enumerate(lines)]
    site = find_ligand(complex_text(parts).encode())
    assert site.name == "B:AAA:1, B:BBB:2"
    assert len(site.heavy) == mol.GetNumHeavyAtoms()


def test_two_molecules_in_one_place_are_no_single_one() -> None:
    over = ligand_lines(BENZAMIDE, name="XYZ", chain="C", shift=(0.3, 0.0, 0.0))
    with pytest.raises(StructureError, match=r"several molecules can be the ligand: B:LIG:1 .*, C:XYZ:1 "):
        find_ligand(complex_text(ligand_lines(BENZAMIDE), over).encode())


def test_of_alternative_locations_the_one_with_the_highest_occupancy_is_taken() -> None:
    a = ligand_lines(BENZAMIDE, altloc="A", occupancy=0.4, shift=FAR)
    b = ligand_lines(BENZAMIDE, altloc="B", occupancy=0.6, shift=(41.0, 0.0, 0.0), serial=6000)
    site = find_ligand(complex_text(a, b).encode())
    assert {atom.altloc for atom in site.atoms} == {"B"}
    assert len(site.heavy) == 9


def test_a_whole_chain_is_the_ligand_where_it_is_named_and_a_part_of_it_is_not() -> None:
    mol = Chem.MolFromSequence("GA")
    Chem.rdDistGeom.EmbedMolecule(mol, randomSeed=7)
    names = {"GLY": 1, "ALA": 2}
    lines = []
    for atom, pos in zip(mol.GetAtoms(), mol.GetConformer().GetPositions() + 50.0, strict=True):
        info = atom.GetPDBResidueInfo()
        residue = info.GetResidueName()
        x, y, z = pos
        lines.append(
            f"ATOM  {atom.GetIdx() + 900:>5} {info.GetName()} {residue} P{names[residue]:>4}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00          {atom.GetSymbol():>2}"
        )
    text = complex_text(lines)
    assert found(text, "P") == "P:GLY:1, P:ALA:2"
    with pytest.raises(StructureError, match="no molecule is 'P:GLY'"):
        find_ligand(text.encode(), "P:GLY")


def test_damage_is_named() -> None:
    text = as_mmcif(complex_text(ligand_lines(BENZAMIDE)))
    with pytest.raises(StructureError, match="in the middle of a row"):
        find_ligand(text[: text.rindex(" 50.00")].encode())
    with pytest.raises(StructureError, match="not finite"):
        find_ligand(re.sub(r"(HETATM 5000 .* \?) +\S+", r"\1 inf", text).encode())
