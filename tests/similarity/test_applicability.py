"""What a model was trained on, and what of a complex it has never seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src.checkpoint import CheckpointError
from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data_processing import build_graph
from src.graph import ComplexGraph
from src.similarity.applicability import Domain, domain_facts, read_domain
from src.system.storage import read_plain, write_plain
from tests.complexes import ALA, ASP, GLY, LIGAND, LIGAND_BONDS, ZN, pdb_text, sdf_text, small_settings


def complex_of(tmp_path: Path, residues: list, atoms: list | None = None, code: str = "1abc") -> ComplexGraph:
    (tmp_path / "p.pdb").write_text(pdb_text(residues))
    bonds = [*LIGAND_BONDS, (1, 5, 1)] if atoms else None
    (tmp_path / "l.sdf").write_text(sdf_text(atoms=atoms, bonds=bonds))
    ligand, protein = read_ligand([tmp_path / "l.sdf"]), read_protein(tmp_path / "p.pdb")
    return build_graph(code, ligand, protein, small_settings(tmp_path).graph)[0]


@pytest.fixture
def known(tmp_path: Path) -> ComplexGraph:
    return complex_of(tmp_path, [ASP, ALA])


@pytest.fixture
def domain(known: ComplexGraph) -> Domain:
    return read_domain({"domain": domain_facts([known, replace(known, code="2abc")], [4.0, 8.0])})


def test_of_a_complex_of_the_training_all_was_seen(domain: Domain, known: ComplexGraph) -> None:
    assert domain.unseen(known) == ()


def test_what_the_training_never_had_is_named(tmp_path: Path, domain: Domain) -> None:
    for residues, expected in (
        ([ASP, ALA, ZN], "new elements in the pocket (Zn)"),
        ([ASP, ALA, GLY], "new residues (GLY)"),
    ):
        assert domain.unseen(complex_of(tmp_path, residues)) == (expected,)


def test_a_ligand_of_another_size_or_with_another_element(tmp_path: Path, domain: Domain) -> None:
    larger = complex_of(tmp_path, [ASP, ALA], [*LIGAND, ("B", 0.0, 1.5, 1.0)])
    assert domain.unseen(larger) == ("new elements in the ligand (B)", "ligand of 5 heavy atoms (training 4 to 4)")


def test_new_elements_are_named_with_their_place(domain: Domain, known: ComplexGraph) -> None:
    features = known.features.clone()
    features[0, 0], features[-1, 0], features[-2, 0] = 9, 17, 15
    expected = ("new elements in the ligand (F)", "new elements in the pocket (P, Cl)")
    assert domain.unseen(replace(known, features=features)) == expected
    features[0, 0] = 0
    dummy = "an atom without an element (dummy or R group) in the ligand"
    assert domain.unseen(replace(known, features=features)) == (dummy, expected[1])


@pytest.mark.parametrize(("pk", "inside"), [(3.9, False), (4.0, True), (8.0, True), (8.1, False)])
def test_a_prediction_beyond_the_labels_was_never_seen(domain: Domain, pk: float, inside: bool) -> None:
    expected = () if inside else ("pK outside of the training labels (4.0 to 8.0)",)
    assert domain.unseen_pk(pk) == expected


def test_it_comes_back_from_a_file(tmp_path: Path, known: ComplexGraph) -> None:
    write_plain(tmp_path / "d.pth.tar", {"domain": domain_facts([known], [5.0])})
    read = read_domain(read_plain(tmp_path / "d.pth.tar"))
    assert read.unseen(known) == ()
    assert read.pk == (5.0, 5.0)
    assert read_domain({}) is None


@pytest.mark.fault("K4")
@pytest.mark.parametrize(
    "odd",
    [
        {"residues": [1]},
        {"pocket_elements": None},
        {"elements": ["C"]},
        {"pK": [1.0]},
        {"ligand_size": []},
    ],
)
def test_an_odd_description_is_refused(known: ComplexGraph, odd: dict[str, Any]) -> None:
    facts = domain_facts([known], [5.0])
    with pytest.raises(CheckpointError, match="training set"):
        read_domain({"domain": {**facts, **odd}})
