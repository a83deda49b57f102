"""What a model was trained on, and what is said of a complex that is like it or not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from src.checkpoint import CheckpointError
from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data_processing import build_graph
from src.graph import ComplexGraph
from src.similarity.applicability import Applicability, Domain, domain_facts, read_domain
from src.similarity.comparison import fingerprints
from src.similarity.sequences import ONE_LETTER
from src.system.storage import read_plain, write_plain
from tests.complexes import ALA, ASP, GLY, LIGAND, LIGAND_BONDS, ZN, pdb_text, sdf_text, small_settings

SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVV"


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
    graphs = [known, replace(known, code="2abc", smiles="c1ccccc1CCO")]
    return read_domain({"domain": domain_facts(graphs, [4.0, 8.0], {"1abc": [SEQUENCE]})})


def test_a_complex_of_the_training_is_like_the_training(domain: Domain, known: ComplexGraph) -> None:
    found = domain.judge(known, 1.0)
    assert found == Applicability("like the training (ligand 1.00, 1abc; protein 100%)")
    assert domain.judge(known, math.nan).text == "like the training (ligand 1.00, 1abc)"


def test_a_ligand_that_cannot_be_compared_is_not_called_alike(domain: Domain, known: ComplexGraph) -> None:
    unknown = "the similarity of the ligand is not known"
    for smiles in ("", "not a SMILES"):
        graph = replace(known, smiles=smiles)
        assert domain.judge(graph, 1.0) == Applicability(f"{unknown}, otherwise like the training (protein 100%)")
        assert domain.judge(graph, math.nan) == Applicability(f"{unknown}, otherwise like the training")
        unlike = domain.judge(graph, 0.1)
        assert unlike.text.endswith(f"(nearest 10% identical); {unknown}")
        assert unlike.reasons == ("protein",)


@pytest.mark.parametrize("smiles", ["CC(N)=O", "OCCc1ccccc1", "CCO", "Oc1ccccc1C(=O)O"])
def test_the_nearest_ligand_is_that_of_rdkit(domain: Domain, smiles: str) -> None:
    from rdkit import DataStructs

    (asked,) = fingerprints([smiles])
    expected = DataStructs.BulkTanimotoSimilarity(asked, fingerprints(["CC(N)=O", "OCCc1ccccc1"]))
    tanimoto, code = domain.nearest_ligand(smiles)
    assert tanimoto == pytest.approx(max(expected))
    assert code == ("1abc", "2abc")[expected.index(max(expected))]


def test_each_way_to_be_unlike_the_training_has_its_reason(tmp_path: Path, domain: Domain, known: ComplexGraph) -> None:
    cases = {
        "ligand": (replace(known, smiles="FC(F)(F)S(=O)(=O)c1ccncc1"), 1.0, "no similar ligand (nearest 0."),
        "protein": (known, 0.12, "no similar protein (nearest 12% identical)"),
        "elements": (complex_of(tmp_path, [ASP, ALA, ZN]), 1.0, "new elements in the pocket (Zn)"),
        "residues": (complex_of(tmp_path, [ASP, ALA, GLY]), 1.0, "new residues (GLY)"),
    }
    for reason, (graph, identity, text) in cases.items():
        found = domain.judge(graph, identity)
        assert found.reasons == (reason,)
        assert found.text.startswith("unlike the training: ")
        assert text in found.text


def test_a_ligand_of_another_size_or_with_another_element(tmp_path: Path, domain: Domain) -> None:
    larger = complex_of(tmp_path, [ASP, ALA], [*LIGAND, ("B", 0.0, 1.5, 1.0)])
    found = domain.judge(replace(larger, smiles="CC(N)=O"), 1.0)
    assert found.reasons == ("elements", "size")
    assert "new elements in the ligand (B); ligand of 5 heavy atoms (training 4 to 4)" in found.text


def test_new_elements_are_named_with_their_place(tmp_path: Path, domain: Domain, known: ComplexGraph) -> None:
    features = known.features.clone()
    features[0, 0], features[-1, 0], features[-2, 0] = 9, 17, 15
    found = domain.judge(replace(known, features=features), 1.0)
    assert found.reasons == ("elements",)
    assert found.text.endswith("new elements in the ligand (F); new elements in the pocket (P, Cl)")
    features[0, 0] = 0
    text = domain.judge(replace(known, features=features), 1.0).text
    assert "an atom without an element (dummy or R group) in the ligand; new elements in the pocket" in text
    assert "*" not in text


@pytest.mark.parametrize(("pk", "inside"), [(3.9, False), (4.0, True), (8.0, True), (8.1, False)])
def test_a_prediction_beyond_the_labels_is_one_more_reason(domain: Domain, pk: float, inside: bool) -> None:
    for before in (Applicability("like the training"), Applicability("unlike the training: x", ("size",))):
        found = domain.judge_pk(pk, before)
        if inside:
            assert found == before
        else:
            assert found.reasons == (*before.reasons, "pK")
            assert found.text.startswith("unlike the training: ")
            assert found.text.endswith("pK outside of the training labels (4.0 to 8.0)")


def test_the_nearest_protein_is_found_by_its_sequence(tmp_path: Path, domain: Domain) -> None:
    path = tmp_path / "receptor.pdb"
    three = {letter: name for name, letter in ONE_LETTER.items()}

    def write(sequence: str) -> None:
        path.write_text(
            pdb_text([(three[a], "A", n, [("CA", "C", 3.8 * n, 0.0, 0.0)]) for n, a in enumerate(sequence, start=1)])
        )

    write(SEQUENCE)
    assert domain.nearest_protein(path) == 1.0
    write(SEQUENCE[:35] + SEQUENCE[35:].replace("L", "V"))
    assert 0.8 < domain.nearest_protein(path) < 1.0
    write("G" * 60)
    assert domain.nearest_protein(path) < 0.3
    path.write_text(pdb_text([ZN]))
    assert math.isnan(domain.nearest_protein(path))


def test_it_comes_back_from_a_file(tmp_path: Path, known: ComplexGraph, domain: Domain) -> None:
    write_plain(tmp_path / "d.pth.tar", {"domain": domain_facts([known], [5.0], {})})
    read = read_domain(read_plain(tmp_path / "d.pth.tar"))
    assert read.judge(known, math.nan).reasons == ()
    assert read.pk == (5.0, 5.0)
    assert read_domain({}) is None


@pytest.mark.fault("K4")
@pytest.mark.parametrize(
    "odd",
    [
        {"codes": [1]},
        {"sequences": None},
        {"elements": ["C"]},
        {"pK": [1.0]},
        {"fingerprints": torch.zeros(3, 256, dtype=torch.uint8)},
        {"fingerprints": torch.zeros(1, 256)},
        {"ligand_size": []},
    ],
)
def test_an_odd_description_is_refused(known: ComplexGraph, odd: dict[str, Any]) -> None:
    facts = domain_facts([known], [5.0], {})
    with pytest.raises(CheckpointError, match="training set"):
        read_domain({"domain": {**facts, **odd}})
