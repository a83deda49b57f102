"""predict.py with a checkpoint that main.py left: tables, exit codes and messages."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import logging
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

import predict as scoring_program
from src.checkpoint import load_checkpoint, save_checkpoint
from src.evaluation.calibration import Calibration, read_calibration
from src.graph import Batch
from src.model import AffinityModel
from src.scoring.ensemble import Ensemble
from src.system.locks import sole_use_of_file
from tests import analogues
from tests.complexes import sdf_text
from tests.training_runs import ROOT, Run, finish, score_options, start


@pytest.mark.fault("M6")
def test_a_score_fits_a_terminal_that_knows_only_ascii(trained: Run) -> None:
    """The line of a score has a delta in it, and often a mu."""
    process = start("predict.py", score_options(trained, "1a01"), LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="")
    code, out, err = finish(process)
    assert code == 0, err
    assert "1a01: pK" in out


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_scores_go_into_a_table(trained: Run, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / "new" / f"scores.{suffix}"
    assert scoring_program.main([*score_options(trained, "1a01"), "--output", str(output)]) == 0
    with open(output, newline="", encoding="utf-8") as file:
        (row,) = list(csv.DictReader(file)) if suffix == "csv" else json.load(file)
    assert row["ligand"] == "1a01"
    assert row["status"] == "ok"
    assert float(row["Kd_nM"]) == pytest.approx(10 ** (9 - float(row["pK"])), rel=2e-3)


@pytest.mark.fault("M8", "M4")
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--protein_path", "absent.pdb", "absent.pdb"),
        ("--ligand_path", "absent.sdf", "absent.sdf"),
        ("--ligand_path", "CC(=O)N", "CC(=O)N"),
        ("--checkpoint", "absent.pth.tar", "absent.pth.tar"),
        ("--checkpoint", __file__, "test_predict.py"),
        ("--device", "cuda:77", "cuda:77"),
    ],
)
def test_a_fault_of_the_user_is_named_without_a_traceback(
    trained: Run, caplog: pytest.LogCaptureFixture, option: str, value: str, message: str
) -> None:
    assert scoring_program.main([*score_options(trained, "1a01"), option, value]) == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("error: ")
    assert message in record.getMessage()
    assert record.exc_info is None


@pytest.mark.parametrize("options", [["--output", "scores.xlsx"], ["--protein", "x"], []])
def test_wrong_options_are_exit_code_2(options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        scoring_program.main(options)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["0", "-1"])
def test_a_batch_size_below_one_is_refused(trained: Run, size: str) -> None:
    with pytest.raises(SystemExit):
        scoring_program.main([*score_options(trained, "1a01"), "--batch_size", size])


@pytest.mark.fault("M8")
@pytest.mark.parametrize(("names", "code"), [(["good", "bad"], 0), (["bad", "good"], 0), (["bad", "bad"], 2)])
def test_one_scored_ligand_is_a_success(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture, names: list[str], code: int
) -> None:
    good = (trained.folder / "data" / "1a01" / "1a01_ligand.sdf").read_text()
    texts = {"good": good, "bad": good.replace("0.0000", "zero", 1)}
    path = tmp_path / "poses.sdf"
    path.write_text("".join(texts[name] for name in names))
    output = tmp_path / "scores.csv"
    options = [*score_options(trained, "1a01"), "--ligand_path", str(path), "--output", str(output)]
    assert scoring_program.main(options) == code
    assert len([line for line in capsys.readouterr().out.splitlines() if not line.startswith("  ")]) == 3  # a heading
    assert len(output.read_text().splitlines()) == 3


@pytest.mark.fault("A12")
def test_a_second_screening_into_one_output_is_refused(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "scores.csv"
    options = [*score_options(trained, "1a01"), "--output", str(output)]
    with sole_use_of_file(output, "--output"):  # as the first one does
        for more in ([], ["--overwrite"], ["--top", "3"]):
            caplog.clear()
            assert scoring_program.main([*options, *more]) == 2
            assert "is being written by another process" in caplog.text
            assert not output.exists()
    assert scoring_program.main(options) == 0


def clique(num_atoms: int) -> str:
    """A molecule of carbon atoms that are all bonded to each other; RDKit ends the process that reads a large one."""
    bonds = list(itertools.combinations(range(1, num_atoms + 1), 2))
    lines = ["clique", "  test", "", "  0  0  0     0  0            999 V3000", "M  V30 BEGIN CTAB"]
    lines += [f"M  V30 COUNTS {num_atoms} {len(bonds)} 0 0 0", "M  V30 BEGIN ATOM"]
    lines += [f"M  V30 {n} C {n % 7} {n % 5} {n / 10} 0" for n in range(1, num_atoms + 1)]
    lines += ["M  V30 END ATOM", "M  V30 BEGIN BOND"]
    lines += [f"M  V30 {n} 1 {one} {other}" for n, (one, other) in enumerate(bonds, 1)]
    return "\n".join([*lines, "M  V30 END BOND", "M  V30 END CTAB", "M  END", "$$$$", ""])


@pytest.mark.fault("F5", "M8")
@pytest.mark.parametrize("suffix", ["csv", "sdf"])
def test_a_molecule_that_ends_its_reader_costs_its_row_alone(trained: Run, tmp_path: Path, suffix: str) -> None:
    poses, output = tmp_path / "poses.sdf", tmp_path / f"scores.{suffix}"
    poses.write_text(sdf_text("first") + clique(100) + sdf_text("last"))
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses), "--output", str(output)]
    assert scoring_program.main(options) == 0
    if suffix == "csv":
        with open(output, newline="", encoding="utf-8") as file:
            found = [(one["ligand"], one["status"][:6]) for one in csv.DictReader(file)]
        assert found == [("first", "ok"), ("clique", "failed"), ("last", "ok")]
    else:
        assert re.findall(r"^> <status>\n(ok|failed)", output.read_text(), re.MULTILINE) == ["ok", "failed", "ok"]


def test_a_model_of_the_demo_set_comes_with_a_warning(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = load_checkpoint(trained.checkpoints / "model_best.pth.tar")
    path = tmp_path / "demo.pth.tar"
    save_checkpoint(path, {**state, "dataset": {**state["dataset"], "synthetic": True}})
    assert scoring_program.main([*score_options(trained, "1a01"), "--checkpoint", str(path)]) == 0
    assert "synthetic demo set" in caplog.text
    caplog.clear()
    scoring_program.main(score_options(trained, "1a01"))
    assert "demo" not in caplog.text


@pytest.mark.fault("M8")
def test_one_bad_pose_of_a_hundred_costs_its_own_row(trained: Run, tmp_path: Path) -> None:
    path, output = tmp_path / "poses.sdf", tmp_path / "scores.csv"
    texts = [sdf_text(f"pose{number}", shift=(0.005 * number, 0.0, 0.0)) for number in range(100)]
    texts[41] = texts[41].replace("0.0000", "zero", 1)
    path.write_text("".join(texts))
    options = [*score_options(trained, "1a01"), "--ligand_path", str(path), "--output", str(output)]
    assert scoring_program.main(options) == 0
    with open(output, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [number for number, row in enumerate(rows) if row["status"] != "ok"] == [41]
    assert len(rows) == 100
    assert rows[41]["status"].startswith("failed: ")
    assert (rows[41]["pK"], rows[40]["ligand"], rows[42]["ligand"]) == ("", "pose40", "pose42")


@pytest.mark.fault("E3", "M8")
def test_a_pose_that_does_not_fit_into_memory_costs_its_own_row(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = AffinityModel.forward

    def limited(model: AffinityModel, batch: Batch) -> torch.Tensor:
        if "large" in batch.codes:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(model, batch)

    monkeypatch.setattr(AffinityModel, "forward", limited)
    path, output = tmp_path / "poses.sdf", tmp_path / "scores.json"
    path.write_text("".join(sdf_text(name) for name in ("first", "large", "third", "last")))
    options = [*score_options(trained, "1a01"), "--ligand_path", str(path), "--output", str(output)]
    assert scoring_program.main(options) == 0
    rows = json.loads(output.read_text())
    assert [row["ligand"] for row in rows] == ["first", "large", "third", "last"]
    assert [row["status"] == "ok" for row in rows] == [True, False, True, True]
    assert "do not fit into memory" in rows[1]["status"]


@pytest.mark.fault("M10")
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_an_output_that_exists_is_kept_unless_it_may_be_replaced(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    output = tmp_path / f"scores.{suffix}"
    output.write_text("precious")
    options = [*score_options(trained, "1a01"), "--output", str(output)]
    assert scoring_program.main(options) == 2
    assert f"{output} exists: give another --output, or add --overwrite" in caplog.text
    assert output.read_text() == "precious"
    assert scoring_program.main([*options, "--overwrite"]) == 0
    assert "1a01" in output.read_text()


@pytest.mark.fault("M3")
def test_a_path_may_start_from_home_and_have_spaces_and_any_letters(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "Zoë's poses"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    (home / "pose 1.sdf").write_text(sdf_text())
    options = [*score_options(trained, "1a01"), "--ligand_path", "~/pose 1.sdf", "--output=~/a b/µ.csv"]
    assert scoring_program.main(options) == 0
    assert (home / "a b" / "µ.csv").is_file()
    assert scoring_program.main([*options, "--protein_path", "~nobody-of-this-name/x.pdb", "--overwrite"]) == 2


# Many poses


def write_poses(path: Path, count: int, *, first: int = 0) -> Path:
    texts = [sdf_text(f"pose{number}", (0.01 * number, 0.0, 0.0)) for number in range(first, first + count)]
    path.write_text("".join(texts))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_several_files_and_folders_are_scored_in_order(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "poses"
    folder.mkdir()
    write_poses(folder / "b.sdf", 2)
    (folder / "a.sdf.gz").write_bytes(gzip.compress(sdf_text("packed").encode()))
    (folder / "empty.sdf").touch()
    last = write_poses(tmp_path / "last.sdf", 1, first=7)
    output = tmp_path / "scores.csv"
    options = [*score_options(trained, "1a01"), "--ligand_path", str(folder), str(last), "--output", str(output)]
    assert scoring_program.main(options) == 0
    assert [row["ligand"] for row in rows_of(output)] == [
        *("packed", "pose0", "pose1", "empty.sdf, molecule 1", "pose7"),
    ]
    assert "is empty" in rows_of(output)[3]["status"]


def test_the_best_of_a_screening_as_molecules(trained: Run, tmp_path: Path) -> None:
    poses, table = write_poses(tmp_path / "poses.sdf", 9), tmp_path / "all.csv"
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses)]
    assert scoring_program.main([*options, "--output", str(table)]) == 0
    ranked = sorted(rows_of(table), key=lambda row: -float(row["pK"]))
    best = tmp_path / "best.sdf.gz"
    assert scoring_program.main([*options, "--output", str(best), "--top", "3"]) == 0
    blocks = gzip.decompress(best.read_bytes()).decode().split("$$$$\n")[:-1]
    assert [block.split("\n")[0] for block in blocks] == [row["ligand"] for row in ranked[:3]]
    for block, row in zip(blocks, ranked, strict=False):
        assert block.startswith(
            sdf_text(row["ligand"], (0.01 * int(row["ligand"][4:]), 0.0, 0.0)).removesuffix("$$$$\n")
        )
        assert f"> <pK>\n{row['pK']}\n" in block


def test_the_best_of_many_poses_of_one_name_are_told_apart(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    poses, output = tmp_path / "poses.sdf", tmp_path / "best.csv"
    poses.write_text("".join(sdf_text("same", (0.1 * number, 0.0, 0.0)) for number in range(5)))
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses)]
    assert scoring_program.main([*options, "--output", str(tmp_path / "all.csv")]) == 0
    rows = rows_of(tmp_path / "all.csv")
    assert [row["molecule"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert list(rows[0])[:3] == ["ligand", "molecule", "pK"]
    ranked = sorted(rows, key=lambda row: -float(row["pK"]))
    capsys.readouterr()
    assert scoring_program.main([*options, "--output", str(output), "--top", "3"]) == 0
    assert [row["molecule"] for row in rows_of(output)] == [row["molecule"] for row in ranked[:3]]
    shown = [line for line in capsys.readouterr().out.splitlines() if ": pK" in line]
    expected = [f"same (poses.sdf, molecule {row['molecule']})" for row in ranked[:3]]
    assert [line.split(":")[0] for line in shown] == expected


def drawn(trained: Run, folder: Path, smiles: str, *, name: str = "series.smi") -> list[str]:
    """Options for SMILES on benzamidine in a pocket of two glycines."""
    mol = analogues.ligand()
    normal = np.cross(*mol.GetConformer().GetPositions()[[4, 6]])
    pocket = analogues.glycines(4.0 * normal / np.linalg.norm(normal), np.array([0.0, 0.0, 60.0]))
    (folder / "p.pdb").write_text(pocket)
    (folder / "crystal.sdf").write_text(Chem.MolToMolBlock(mol) + "$$$$\n")
    (folder / name).write_text(smiles)
    protein, template = str(folder / "p.pdb"), str(folder / "crystal.sdf")
    options = ["--protein_path", protein, "--ligand_path", str(folder / name), *score_options(trained, "1a01")[4:]]
    return [*options, "--template", template]


SERIES = "smiles,name,note\nNC(=N)c1ccc(C)cc1,methyl,x\nCCO,ethanol,y\nNC(=N)c1cccc(Cl)c1,chloro,z\n"


def test_smiles_are_posed_on_a_template(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options, output = drawn(trained, tmp_path, SERIES, name="series.csv"), tmp_path / "scores.csv"
    assert scoring_program.main([*options, "--output", str(output), "--explain", str(tmp_path / "why")]) == 0
    rows = rows_of(output)
    assert [(row["name"], row["note"], row["ligand"], row["pose"]) for row in rows] == [
        ("methyl", "x", "methyl", "modelled on benzamidine (crystal.sdf), core 9 of 10 atoms"),
        ("ethanol", "y", "ethanol", ""),
        ("chloro", "z", "chloro", "modelled on benzamidine (crystal.sdf), core 9 of 10 atoms"),
    ]
    assert "the common core with benzamidine" in rows[1]["status"]
    assert "warning: the pose is modelled on benzamidine" in capsys.readouterr().out
    poses = list(Chem.SDMolSupplier(str(tmp_path / "scores_poses.sdf")))
    assert [mol.GetNumHeavyAtoms() for mol in poses] == [10, 0, 10]
    assert [mol.GetProp("pose") for mol in (poses[0], poses[2])] == [rows[0]["pose"], rows[2]["pose"]]
    # A modelled pose has the score of the same pose when it is given.
    given = [*options[:3], str(tmp_path / "scores_poses.sdf"), *options[4:-2], "--output", str(tmp_path / "given.csv")]
    assert scoring_program.main(given) == 0
    again = rows_of(tmp_path / "given.csv")
    assert [row["pose"] for row in again] == ["given", "", "given"]
    assert float(again[0]["pK"]) == pytest.approx(float(rows[0]["pK"]), abs=2e-3)


def test_poses_go_into_an_sdf_that_is_asked_for_and_into_no_second_one(trained: Run, tmp_path: Path) -> None:
    options = drawn(trained, tmp_path, "NC(=N)c1ccc(C)cc1 a\nNC(=N)c1ccc(C)cc1 a\n")
    output = tmp_path / "scores.sdf"
    assert scoring_program.main([*options, "--output", str(output), "--best_pose", "--top", "5"]) == 0
    (mol,) = Chem.SDMolSupplier(str(output))
    assert (mol.GetProp("_Name"), mol.GetProp("num_poses"), mol.GetNumHeavyAtoms()) == ("a", "2", 10)
    assert not (tmp_path / "scores_poses.sdf").exists()


@pytest.mark.fault("M8")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda options: options[:-2], "has SMILES and no poses: add --template"),
        (lambda options: [*options[:3], options[-1], *options[4:]], "--template goes with one file of SMILES"),
        (lambda options: [*options, "absent.sdf"], "absent.sdf: there is no such file"),
    ],
)
def test_smiles_without_a_template_and_a_template_without_smiles_are_refused(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable, message: str
) -> None:
    assert scoring_program.main(change(drawn(trained, tmp_path, "c1ccccc1 a\n"))) == 2
    assert message in caplog.text


@pytest.mark.parametrize("more", [[], ["--top", "1"]])
def test_of_each_ligand_the_best_of_its_poses(trained: Run, tmp_path: Path, more: list[str]) -> None:
    poses, every, output = (tmp_path / name for name in ("poses.sdf", "all.csv", "best.csv"))
    poses.write_text("".join(sdf_text(f"ligand{n % 2}", (0.1 * n, 0.0, 0.0)) for n in range(6)))
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses), "--output"]
    assert scoring_program.main([*options, str(every)]) == 0
    expected = {}
    for row in rows_of(every):
        expected[row["ligand"]] = max(expected.get(row["ligand"], row), row, key=lambda one: float(one["pK"]))
    best = sorted(expected.values(), key=lambda row: -float(row["pK"]) if more else row["ligand"])
    assert scoring_program.main([*options, str(output), "--best_pose", *more]) == 0
    found = rows_of(output)
    assert [(row["ligand"], row["molecule"]) for row in found] == [
        (row["ligand"], row["molecule"]) for row in best[: 1 if more else 2]
    ]
    for row in found:
        pks = [float(one["pK"]) for one in rows_of(every) if one["ligand"] == row["ligand"]]
        assert row["num_poses"] == "3"
        assert float(row["pK_sd_poses"]) == pytest.approx(statistics.stdev(pks), abs=2e-3)
    assert scoring_program.main([*options, str(tmp_path / "best.sdf"), "--best_pose", *more]) == 0
    assert (tmp_path / "best.sdf").read_text().startswith("ligand")


@pytest.mark.fault("M10")
@pytest.mark.parametrize("kind", ["ligand", "link", "folder", "protein", "table", "file of the table"])
def test_an_output_is_none_of_the_inputs(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Refused before anything is written, --overwrite or not."""
    protein, ligand, table = (tmp_path / name for name in ("protein.csv", "a.sdf", "pairs.csv"))
    shutil.copy(trained.folder / "data" / "1a01" / "1a01_pocket.pdb", protein)
    write_poses(ligand, 1)
    table.write_text("protein_path,ligand_path\nprotein.csv,a.sdf\n")
    (tmp_path / "link.sdf").symlink_to(ligand)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    output = {"protein": protein, "table": table, "link": tmp_path / "link.sdf"}.get(kind, ligand)
    given = tmp_path if kind == "folder" else ligand
    options = [*score_options(trained, "1a01"), "--protein_path", str(protein), "--ligand_path", str(given)]
    if "table" in kind:
        options = ["--pairs", str(table), *options[4:6]]
    assert scoring_program.main([*options, "--output", str(output), "--overwrite"]) == 2
    assert "too: give another file" in caplog.text
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_ligand_file_in_place_of_the_protein_is_named_before_any_work(
    trained: Run, caplog: pytest.LogCaptureFixture
) -> None:
    options = score_options(trained, "1a01")
    assert scoring_program.main(["--protein_path", options[3], "--ligand_path", options[1], *options[4:]]) == 2
    assert "1a01_ligand.sdf: is a ligand file (SDF or MOL2) and not a protein; are protein and ligand sw" in caplog.text


def test_a_table_of_pairs_keeps_its_columns(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = trained.folder / "data" / "1a01"
    table, output = tmp_path / "pairs.csv", tmp_path / "scores.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["protein_path", "ligand_path", "pK", "note"])
        writer.writerow([data / "1a01_pocket.pdb", data / "1a01_ligand.sdf", "6.5", 'said "x", twice'])
        writer.writerow(["absent.pdb", data / "1a01_ligand.sdf", "", ""])
    options = ["--pairs", str(table), "--checkpoint", str(trained.checkpoints / "model_best.pth.tar"), "--quiet"]
    assert scoring_program.main([*options, "--output", str(output)]) == 0
    scored, failed = rows_of(output)
    assert (scored["pK"], scored["note"], scored["predicted_status"]) == ("6.5", 'said "x", twice', "ok")
    assert float(scored["predicted_pK"]) > 0
    assert failed["predicted_status"].endswith("absent.pdb: there is no such file")
    assert capsys.readouterr().out == ""


def test_an_ensemble_and_jitter_say_how_sure_they_are(
    trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    state = load_checkpoint(trained.checkpoints / "model_best.pth.tar")
    folder = tmp_path / "runs"
    for number in range(3):
        moved = {name: value + 0.02 * number for name, value in (state["ema"] or state["model"]).items()}
        (folder / str(number)).mkdir(parents=True)
        save_checkpoint(folder / str(number) / "model_best.pth.tar", {**state, "ema": None, "model": moved})
    output = tmp_path / "scores.json"
    options = [*score_options(trained, "1a01"), "--checkpoint", str(folder), "--per_model", "--jitter", "4"]
    assert scoring_program.main([*options, "--output", str(output)]) == 0
    (row,) = json.loads(output.read_text())
    members = [row[f"pK_model_{number}"] for number in (1, 2, 3)]
    assert row["pK"] == pytest.approx(statistics.mean(members), abs=2e-3)
    assert row["pK_sd_models"] == pytest.approx(statistics.stdev(members), abs=2e-3)
    assert row["pK_sd_models"] > 0
    assert row["pK_sd_jitter"] > 0
    again = tmp_path / "again.json"
    assert scoring_program.main([*options, "--output", str(again)]) == 0
    assert again.read_text() == output.read_text()  # the noise is the same in every run
    capsys.readouterr()
    assert scoring_program.main(options) == 0
    shown = capsys.readouterr().out
    (of_models, members_shown), (of_copies,) = (
        re.search(pattern, shown).groups()
        for pattern in (r"SD of 3 models ([\d.]+) \((.+?)\)", r"SD of jittered copies ([\d.]+)")
    )
    rounded = 0.0056  # to 2 decimals here and to 3 in the file
    assert [float(one) for one in members_shown.split(", ")] == pytest.approx(members, abs=rounded)
    assert float(of_models) == pytest.approx(row["pK_sd_models"], abs=rounded)
    assert float(of_copies) == pytest.approx(row["pK_sd_jitter"], abs=rounded)


def test_models_of_other_graphs_are_no_ensemble(trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = load_checkpoint(trained.checkpoints / "model_best.pth.tar")
    other = tmp_path / "other.pth.tar"
    save_checkpoint(other, {**state, "graph_settings": {**state["graph_settings"], "keep_waters": True}})
    first = str(trained.checkpoints / "model_best.pth.tar")
    assert scoring_program.main([*score_options(trained, "1a01"), "--checkpoint", first, str(other)]) == 2
    assert "other.pth.tar: its graphs have other settings" in caplog.text


def test_a_model_knows_its_interval_and_its_training_set(trained: Run, tmp_path: Path) -> None:
    """And one of an earlier version, which does not, predicts all the same."""
    state = load_checkpoint(trained.checkpoints / "model_best.pth.tar")
    known, old = tmp_path / "known.pth.tar", tmp_path / "old.pth.tar"
    save_checkpoint(known, {**state, "calibration": Calibration(0.0).state_dict()})
    save_checkpoint(old, {name: part for name, part in state.items() if name not in ("calibration", "domain")})
    rows = {}
    for path in (known, old):
        output = path.with_suffix(".csv")
        options = [*score_options(trained, "1a01"), "--checkpoint", str(path), "--output", str(output)]
        assert scoring_program.main(options) == 0
        (rows[path],) = rows_of(output)
    assert float(rows[known]["pK"]) - float(rows[known]["pK_low"]) == pytest.approx(1.0, abs=2e-3)
    assert float(rows[known]["pK_high"]) - float(rows[known]["pK"]) == pytest.approx(1.0, abs=2e-3)
    assert rows[known]["trust"] in ("high", "medium", "low")
    assert rows[known]["trust_reason"]
    assert (rows[old]["pK_low"], rows[old]["pK_high"]) == ("", "")
    assert (rows[old]["trust"], "not known" in rows[old]["trust_reason"]) == ("medium", True)
    assert rows[old]["pK"] == rows[known]["pK"]


# A screening that is stopped


@pytest.mark.fault("M10")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
@pytest.mark.parametrize(("ending", "number"), [("csv", "SIGKILL"), ("json.gz", "SIGTERM")])
def test_a_killed_screening_goes_on_with_the_same_command(
    trained: Run, tmp_path: Path, ending: str, number: str
) -> None:
    poses, output, whole = (tmp_path / name for name in ("poses.sdf", f"scores.{ending}", f"whole.{ending}"))
    write_poses(poses, 1500)
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses), "--num_workers", "0", "--quiet"]
    state = Path(f"{output}.state.json")
    process = start("predict.py", [*options, "--output", str(output), "--overwrite"])
    deadline = time.monotonic() + 60
    while not (output.exists() and output.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(getattr(signal, number))
    code, _, err = finish(process)
    assert code == (-signal.SIGKILL if number == "SIGKILL" else 143), err
    assert ("Give the same command without --overwrite to go on" in err) == (number == "SIGTERM")
    assert state.exists()
    assert scoring_program.main([*options, "--output", str(output)]) == 0
    assert not state.exists()
    assert scoring_program.main([*options, "--output", str(whole)]) == 0
    first, second = (path.read_bytes() for path in (output, whole))
    assert (gzip.decompress(first) if ending.endswith("gz") else first) == (
        gzip.decompress(second) if ending.endswith("gz") else second
    )


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_whoever_stops_it_learns_how_to_go_on(
    trained: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    overwrite: bool,
    begun: bool,
) -> None:
    """And that nothing is there to go on with, where nothing is."""
    begin, calls = Ensemble.begin, []

    def stopped(self: Ensemble, *chunk: object) -> Callable[[], list]:
        calls.append(chunk)
        if len(calls) > begun:
            raise KeyboardInterrupt
        return begin(self, *chunk)

    monkeypatch.setattr(Ensemble, "begin", stopped)
    poses, output = write_poses(tmp_path / "poses.sdf", 4), tmp_path / "scores.csv"
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses), "--output", str(output)]
    options += ["--batch_size", "2", "--num_workers", "0"]
    assert scoring_program.main([*options, *["--overwrite"] * overwrite]) == 130
    how = "the same command without --overwrite" if overwrite else "the same command"
    assert (f"Give {how} to go on" in caplog.text) == begun
    assert output.exists() == begun
    monkeypatch.setattr(Ensemble, "begin", begin)
    assert scoring_program.main(options) == 0
    assert [row["molecule"] for row in rows_of(output)] == ["1", "2", "3", "4"]


def test_a_ranking_that_is_stopped_while_it_is_written_is_made_anew(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    poses, output, whole = (tmp_path / name for name in ("poses.sdf", "scores.csv", "whole.csv"))
    write_poses(poses, 6)
    options = [*score_options(trained, "1a01"), "--ligand_path", str(poses), "--top", "3", "--output"]
    assert scoring_program.main([*options, str(whole)]) == 0

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scoring_program, "_show", stop)
        patch.setattr("src.scoring.score_files.SAVE_EVERY_S", 0.0)
        assert scoring_program.main([*options, str(output)]) == 130
    assert "to go on" not in caplog.text
    assert scoring_program.main([*options, str(output)]) == 0
    assert output.read_text() == whole.read_text()


def test_a_screening_of_the_folder_that_its_output_lies_in_goes_on(trained: Run, tmp_path: Path) -> None:
    poses, output = write_poses(tmp_path / "poses.sdf", 1500), tmp_path / "scores.sdf"
    options = [*score_options(trained, "1a01"), "--ligand_path", str(tmp_path), "--output", str(output), "--quiet"]
    process = start("predict.py", [*options, "--num_workers", "0"])
    deadline = time.monotonic() + 60
    while not (output.exists() and output.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    poses_before = poses.read_bytes()
    assert scoring_program.main(options) == 0
    titles = [block.split("\n")[0] for block in output.read_text().split("$$$$\n")[:-1]]
    assert titles == [f"pose{number}" for number in range(1500)]
    assert poses.read_bytes() == poses_before


# Pipes


def test_poses_come_and_rows_go_through_pipes(trained: Run, tmp_path: Path) -> None:
    poses = write_poses(tmp_path / "poses.sdf", 5)
    options = [*score_options(trained, "1a01"), "--ligand_path", "-", "--output", "-"]
    with open(poses, "rb") as stream:
        done = subprocess.run(
            [sys.executable, str(ROOT / "predict.py"), *options], stdin=stream, capture_output=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout.decode())))
    assert [row["ligand"] for row in rows] == [f"pose{number}" for number in range(5)]
    assert {row["status"] for row in rows} == {"ok"}


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="POSIX")
def test_a_reader_that_has_seen_enough_ends_it_quietly(trained: Run, tmp_path: Path) -> None:
    poses = write_poses(tmp_path / "poses.sdf", 300)
    process = start(
        "predict.py", [*score_options(trained, "1a01"), "--ligand_path", str(poses), "--output", "-", "--quiet"]
    )
    assert process.stdout.readline().startswith("ligand,molecule,pK")
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


# A first look


def test_help_answers_at_once_with_commands_to_copy(tmp_path: Path) -> None:
    script = "import sys, predict\ntry: predict.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("False")  # torch takes seconds to load
    examples = [line.split("predict.py ")[1] for line in done.stdout.splitlines() if "python predict.py --" in line]
    assert len(examples) >= 5
    for example in examples:
        assert scoring_program._options(shlex.split(example.partition(" > ")[0]))


@pytest.mark.parametrize("pretrained", [False, True])
def test_without_a_checkpoint_the_shipped_model_is_used_else_the_last_one(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pretrained: bool
) -> None:
    monkeypatch.setattr(scoring_program, "CHECKPOINTS", tmp_path)
    options = score_options(trained, "1a01")
    options = options[: options.index("--checkpoint")]
    assert scoring_program.main(options) == 2
    assert "model_best.pth.tar: there is no such file; train with main.py first" in caplog.text
    folder = tmp_path / "pretrained" if pretrained else tmp_path
    folder.mkdir(exist_ok=True)
    shutil.copy(trained.checkpoints / "model_best.pth.tar", folder / "model_best.pth.tar")
    if pretrained:
        (tmp_path / "model_best.pth.tar").write_text("damaged")
    assert scoring_program.main(options) == 0


def test_a_training_leaves_what_a_prediction_says_of_itself(trained: Run) -> None:
    state = load_checkpoint(trained.checkpoints / "model_best.pth.tar")
    assert read_calibration(state).constant < 5
    assert state["domain"]["ligand_size"] == [4, 4]
    assert json.loads((trained.results / "run.json").read_text())["domain"] == state["domain"]
