"""Complexes with the ligand inside as poses: their graphs, what is said of them, and their rows."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from rdkit import Chem

import predict as scoring_program
from src.chemistry.structure_ligands import COLUMNS
from src.graph import FEATURE_COLUMN, Side
from src.scoring.pose_graphs import PoseGraphs, PoseReader
from src.scoring.poses import iter_complexes, iter_poses, read_pairs
from src.settings import GraphSettings
from tests.complex_texts import as_mmcif, complex_text, conect_lines, ligand_lines, molecule, without_hydrogens
from tests.complexes import assert_same_graph, small_settings
from tests.training_runs import Run, score_options

SMILES = "NC(=O)c1ccccc1"
MOL = molecule(SMILES)
LINES = without_hydrogens(ligand_lines(MOL, shift=(0.0, -4.0, 2.0)))


@pytest.fixture
def settings(tmp_path: Path) -> GraphSettings:
    return small_settings(tmp_path).graph


def read(settings: GraphSettings, path: Path, smiles: str = SMILES, word: str = "") -> PoseGraphs:
    (found,) = PoseReader(settings, one_receptor=False).read(
        list(iter_complexes([path], (), smiles, word)), is_all=True
    )
    return found


def test_a_complex_gives_the_graph_of_its_protein_and_its_ligand(tmp_path: Path, settings: GraphSettings) -> None:
    (tmp_path / "p.pdb").write_text(complex_text())
    (tmp_path / "x.pdb").write_text(complex_text(LINES))
    (tmp_path / "x.cif").write_text(as_mmcif(complex_text(LINES)))
    found = read(settings, tmp_path / "x.pdb")
    (tmp_path / "l.sdf").write_text(found.modelled.text)
    (apart,) = PoseReader(settings).read(list(iter_poses(tmp_path / "p.pdb", [tmp_path / "l.sdf"])))
    for one in (found, read(settings, tmp_path / "x.cif")):
        assert_same_graph(one.graphs[0], apart.graphs[0])
        assert (one.ligand, one.failure, one.warnings) == ("x", "", apart.warnings)
        assert one.found["ligand_residue"] == "B:LIG:1"
    assert found.graphs[0].contacts.shape[1]


def test_the_ligand_that_is_not_chosen_stays_in_the_protein(tmp_path: Path, settings: GraphSettings) -> None:
    near = ligand_lines(molecule("CCO"), name="XYZ", chain="C", shift=(0.0, -9.5, 2.0))
    (tmp_path / "x.pdb").write_text(complex_text(LINES, without_hydrogens(near)))
    graph = read(settings, tmp_path / "x.pdb", word="LIG").graphs[0]
    sides = graph.features[:, FEATURE_COLUMN["side"]].tolist()
    assert (sides.count(Side.LIGAND), sides.count(Side.COFACTOR)) == (9, 3)
    assert "several molecules" in read(settings, tmp_path / "x.pdb").failure


def test_another_molecule_in_the_way_of_a_pose_is_named(tmp_path: Path, settings: GraphSettings) -> None:
    other = ligand_lines(molecule("CCCCO"), name="XYZ", chain="C", number=7, shift=(0.5, -4.0, 2.0))
    (tmp_path / "x.pdb").write_text(complex_text(LINES, without_hydrogens(other)))
    warnings = read(settings, tmp_path / "x.pdb", word="LIG").warnings
    assert "XYZ C 7 of the protein file lies in the way: take it out if it is another ligand" in warnings
    (tmp_path / "x.pdb").write_text(complex_text(LINES))
    assert not any("in the way" in text for text in read(settings, tmp_path / "x.pdb").warnings)


def test_columns_of_a_table_choose_the_ligand_of_each_row(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(
        "complex_path,Ligand_Residue,SMILES\nx.pdb,B,CCO\ny.cif,,drawn.sdf\n,,\nz.pdb,,\n"
    )
    first, second, third = read_pairs(tmp_path / "pairs.csv").poses()
    assert (first.protein, first.ligand, first.residue, first.smiles) == (*[tmp_path / "x.pdb"] * 2, "B", "CCO")
    assert (second.residue, second.smiles) == ("", str(tmp_path / "drawn.sdf"))
    assert (third.smiles, third.given) == ("", ("z.pdb", "", ""))


def test_a_row_without_a_file_has_a_name_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("name,complex_path\nx,\n")
    (pose,) = read_pairs(tmp_path / "pairs.csv").poses()
    assert (pose.place, pose.failure) == ("no file", "line 2: complex_path is empty")


def test_complexes_of_a_folder_are_rows_and_one_that_fails_says_why(trained: Run, tmp_path: Path) -> None:
    folder, output = tmp_path / "models", tmp_path / "scores.csv"
    folder.mkdir()
    (folder / "a.pdb").write_text(complex_text(LINES, more=conect_lines(MOL, orders=True)))
    (folder / "b.cif").write_text(as_mmcif(complex_text(LINES)))
    checkpoint = score_options(trained, "1a01")[-2:]
    options = ["--complex_path", str(folder), "--output", str(output), "--num_workers", "0", *checkpoint]
    assert scoring_program.main(options) == 0
    with open(output, newline="", encoding="utf-8") as file:
        one, other = csv.DictReader(file)
    assert set(COLUMNS) < set(one)
    assert (one["ligand"], one["status"], one["bond_orders"], one["pose"]) == ("a", "ok", "CONECT orders", "given")
    assert other["ligand"] == "b"
    assert "nothing states its bond orders; give its SMILES with --smiles" in other["status"]
    sdf = tmp_path / "scores.sdf"
    assert scoring_program.main([*options[:3], str(sdf), *options[4:], "--smiles", SMILES]) == 0
    molecules = list(Chem.SDMolSupplier(str(sdf)))
    assert [Chem.MolToSmiles(mol) for mol in molecules] == [Chem.CanonSmiles(SMILES)] * 2
    assert float(molecules[0].GetProp("pK")) == pytest.approx(float(one["pK"]), abs=0.01)


def test_a_smiles_that_is_not_the_ligand_is_not_asked_for_again(tmp_path: Path, settings: GraphSettings) -> None:
    (tmp_path / "x.pdb").write_text(complex_text(LINES))
    failure = read(settings, tmp_path / "x.pdb", "CCO").failure
    assert "B:LIG:1 is not what --smiles says: the SMILES given: heavy atoms are C2O, the file has C7NO" in failure
    assert "give its SMILES" not in failure


@pytest.mark.parametrize("name", ["x.pdbqt", "x.sdf.gz"])
def test_a_ligand_alone_is_no_complex(name: str, tmp_path: Path, settings: GraphSettings) -> None:
    assert "is a ligand alone; give it as --ligand_path" in read(settings, tmp_path / name).failure


def test_a_smiles_beside_ligands_with_bond_orders_is_refused(trained: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert scoring_program.main([*score_options(trained, "1a01"), "--smiles", "CCO"]) == 2
    assert "the ligands given have their own" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--complex_path", "x.pdb", "--pairs", "p.csv"], "either --protein_path and --ligand_path, or --complex_path"),
        (["--ligand_residue", "A", "--pairs", "p.csv"], "--ligand_residue goes with --complex_path"),
        (["--smiles", "C", "--pairs", "p.csv"], "--smiles goes with --complex_path or --ligand_path"),
        (["--complex_path", "x.pdb", "--selftest"], "--selftest takes"),
        (["--complex_path", "-"], "not standard input"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scoring_program.main(options)
    assert message in capsys.readouterr().err
