"""predict.py with a checkpoint that main.py left: tables, exit codes and messages."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest

import predict as scoring_program
from src.checkpoint import load_checkpoint, save_checkpoint
from tests.complexes import write_dataset
from tests.runs import CODES, Run, finish, score_options, start


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("trained"))
    write_dataset(run.folder / "data", CODES)
    assert run.train() == 0
    return run


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
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert len(output.read_text().splitlines()) == 3


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
