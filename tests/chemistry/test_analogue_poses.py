"""A molecule as drawn on a crystal ligand: its core stays, the rest fits the pocket, and nothing drawn is changed."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from scipy.spatial.distance import cdist

from src.chemistry import analogue_poses
from src.chemistry.analogue_poses import PosingError, pose_analogue, read_smiles
from tests.analogues import beyond, carbons, ligand, template

ALANINE_LIKE = "C[C@H](N)c1ccccc1", "C[C@@H](N)c1ccccc1"


def pos(mol: Chem.Mol) -> np.ndarray:
    return Chem.RemoveHs(mol).GetConformer().GetPositions()


def smiles_in_space(mol: Chem.Mol) -> str:
    mol = Chem.Mol(mol)
    Chem.AssignStereochemistryFrom3D(mol)
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def test_the_core_lies_where_the_template_has_it() -> None:
    one = template()
    found = pose_analogue("NC(=N)c1ccc(CC)cc1", [one])
    assert (found.template, found.num_core, found.num_atoms, found.notes) == ("benzamidine", 9, 11, ())
    core = found.mol.GetSubstructMatches(Chem.MolFromSmiles("NC(=N)c1ccccc1"), uniquify=False)
    there = one.mol.GetConformer().GetPositions()
    nearest = min(np.linalg.norm(pos(found.mol)[list(match)] - there, axis=1).max() for match in core)
    assert nearest < 2 * analogue_poses.CORE_SLACK
    assert any(atom.GetAtomicNum() == 1 for atom in found.mol.GetAtoms())


def test_the_same_pose_in_every_run() -> None:
    first, second = (pose_analogue("NC(=N)c1cccc(OCC)c1", [template()]) for _ in range(2))
    assert (pos(first.mol) == pos(second.mol)).all()


def test_of_two_equivalent_places_the_one_with_room_is_taken() -> None:
    mol = ligand()
    for full, free in ((5, 7), (7, 5)):
        wall = carbons(*(beyond(mol, full, distance) for distance in (2.5, 3.5)))
        found = pose_analogue("NC(=N)c1cccc(Cl)c1", [template(pocket=wall)])
        chlorine = pos(found.mol)[[a.GetAtomicNum() == 17 for a in Chem.RemoveHs(found.mol).GetAtoms()]]
        distance = cdist(chlorine, mol.GetConformer().GetPositions()[[full, free]])[0]
        assert distance[1] < 2.2 < distance[0]


def test_a_side_chain_is_pushed_off_the_pocket() -> None:
    wall = carbons(beyond(ligand(), 6, 3.0))  # where the second carbon of the chain would lie
    found = pose_analogue("NC(=N)c1ccc(CC)cc1", [template(pocket=wall)])
    assert cdist(pos(found.mol), wall.pos).min() > 2.5


def test_a_core_without_room_is_no_core() -> None:
    mol = ligand()
    cage = carbons(*(beyond(mol, atom, 1.0) for atom in range(9)), *mol.GetConformer().GetPositions()[3:] * 0.5)
    with pytest.raises(PosingError, match="there is no room for it on its core with benzamidine"):
        pose_analogue("NC(=N)c1ccc(C)cc1", [template(pocket=cage)])


def test_like_atoms_are_no_condition_of_a_core() -> None:
    """A pyridine lies on the benzene, and chlorine on the methyl."""
    found = pose_analogue("NC(=N)c1ccc(Cl)cn1", [template("NC(=N)c1ccc(C)cc1", "tolyl")])
    assert found.num_core == found.num_atoms == 10


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("CCO", "the common core with benzamidine has 2 of 3 heavy atoms; at least 6 and a third"),
        ("c1ccccc1" + "C" * 20, "has 8 of 26 heavy atoms"),
        ("xx", "RDKit cannot read the SMILES 'xx'"),
        ("c1ccccc1(C)(C)C", "RDKit cannot read"),
        ("*c1ccccc1", "an atom without an element"),
        ("C" * 200, "200 heavy atoms; at most 150"),
    ],
)
def test_what_cannot_be_posed_is_named(smiles: str, reason: str) -> None:
    with pytest.raises(PosingError) as error:
        pose_analogue(smiles, [template()])
    assert reason in str(error.value)


@pytest.mark.parametrize("smiles", ALANINE_LIKE)
@pytest.mark.parametrize("on", ALANINE_LIKE)
def test_centres_are_as_drawn_whatever_the_template_has(smiles: str, on: str) -> None:
    found = pose_analogue(smiles.replace("c1ccccc1", "c1ccc(F)cc1"), [template(on, "amine")])
    assert smiles_in_space(found.mol) == Chem.CanonSmiles(smiles.replace("c1ccccc1", "c1ccc(F)cc1"))


def test_stereo_that_the_force_field_turns_round_is_no_pose(monkeypatch: pytest.MonkeyPatch) -> None:
    real = analogue_poses._relax

    def mirror(one: analogue_poses._Candidate, *more: object) -> float | None:
        energy, conformer = real(one, *more), one.mol.GetConformer(one.conformer)
        conformer.SetPositions(conformer.GetPositions() * [1.0, 1.0, -1.0])
        return energy

    monkeypatch.setattr(analogue_poses, "_relax", mirror)
    monkeypatch.setattr(analogue_poses, "MAX_MOVED", 100.0)
    pose_analogue("Cc1ccccc1", [template("Cc1ccccc1", "toluene")])
    with pytest.raises(PosingError, match="with the stereo as drawn"):
        pose_analogue(ALANINE_LIKE[0], [template(ALANINE_LIKE[0], "amine")])


@pytest.mark.parametrize("smiles", ["OC/C=C/c1ccccc1", "OC/C=C\\c1ccccc1"])
def test_double_bonds_are_as_drawn_whatever_the_template_has(smiles: str) -> None:
    found = pose_analogue(smiles, [template("NC/C=C/c1ccccc1", "cinnamyl")])
    assert smiles_in_space(found.mol) == Chem.CanonSmiles(smiles)
    assert found.num_core == (10 if "C=C/c" in smiles else 8)  # of the other one the side with the alcohol is free


def test_stereo_that_is_not_drawn_is_tried_and_said() -> None:
    found = pose_analogue("CC(N)c1ccccc1", [template(ALANINE_LIKE[0], "amine")])
    assert smiles_in_space(found.mol) == Chem.CanonSmiles(ALANINE_LIKE[0])  # which fits best
    assert found.notes == ("stereo is not drawn everywhere: of 2 isomers the one that fits best was posed",)
    many = pose_analogue("CC(N)C(O)C(F)c1ccccc1", [template("Cc1ccccc1", "toluene")])
    assert "of 4 isomers" in many.notes[0]
    assert "@" in smiles_in_space(many.mol)


@pytest.mark.parametrize("smiles", ["NC(=[NH2+])c1ccccc1", "[O-]C(=O)c1ccccc1", "C[N+](C)(C)Cc1ccccc1"])
def test_charges_are_as_drawn(smiles: str) -> None:
    found = pose_analogue(smiles, [template("NC(=N)c1ccccc1")])
    assert Chem.MolToSmiles(Chem.RemoveHs(found.mol)) == Chem.CanonSmiles(smiles)


def test_of_several_templates_the_best_is_taken() -> None:
    templates = [template("Cc1ccccc1", "toluene"), template("NC(=N)c1ccc(O)cc1", "phenol"), template("CCO", "ethanol")]
    for order in (templates, templates[::-1]):
        found = pose_analogue("NC(=N)c1ccc(OC)cc1", order)
        assert (found.template, found.num_core) == ("phenol", 10)


def test_salts_lose_their_small_part() -> None:
    mol, notes = read_smiles("NC(=N)c1ccccc1.Cl")
    assert mol.GetNumAtoms() == 9
    assert notes == ["2 fragments, largest of 9 heavy atoms posed"]


def test_what_mmff_does_not_know_is_relaxed_by_uff() -> None:
    found = pose_analogue("OB(O)c1ccccc1", [template("OC(O)c1ccccc1", "diol")])
    assert found.num_core >= 6
