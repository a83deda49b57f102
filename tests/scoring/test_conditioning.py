"""Scores conditioned on measured ligands, from a table to the rows and to a file that scores alone."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path

import pytest

import predict as scoring_program
from src.checkpoint import MEMBERS, CheckpointError, load_checkpoint, load_members, newest_checkpoint, save_checkpoint
from src.gaussian_process.joined_model import JoinedModel
from src.scoring.ensemble import load_ensemble
from src.system.storage import write_plain
from tests.training_runs import Run, score_options

HIGH = 11.0  # far above what the model says


def model_of(run: Run) -> Path:
    return run.checkpoints / "model_best.pth.tar"


def write_known(path: Path, run: Run, *rows: tuple[str, str], column: str = "pK") -> Path:
    """A table of complexes of the run and what was measured of each."""
    data = run.folder / "data"
    lines = [f"protein_path,ligand_path,{column}"]
    lines += [f"{data}/{code}/{code}_pocket.pdb,{data}/{code}/{code}_ligand.sdf,{value}" for code, value in rows]
    path.write_text("\n".join([*lines, ""]))
    return path


def score(run: Run, output: Path, *more: object, code: str = "1a01") -> dict[str, str]:
    """The row of one pose."""
    options = [*score_options(run, code), "--output", output, "--num_workers", "0", "--device", "cpu", *more]
    assert scoring_program.main([str(option) for option in options]) == 0
    with open(output, newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return row


def refused(caplog: pytest.LogCaptureFixture, *options: object) -> str:
    caplog.clear()
    assert scoring_program.main([str(option) for option in options]) == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is None
    return record.getMessage()


def test_scores_move_towards_what_was_measured(trained: Run, tmp_path: Path) -> None:
    before = float(score(trained, tmp_path / "before.csv")["pK"])
    known = write_known(tmp_path / "known.csv", trained, ("1a01", str(HIGH)), ("1a02", str(HIGH)))
    stored = model_of(trained).read_bytes()
    row = score(trained, tmp_path / "after.csv", "--known", known)
    assert before + 0.3 < float(row["pK"]) < HIGH
    assert model_of(trained).read_bytes() == stored


def test_a_bound_that_holds_moves_nothing_and_one_that_does_not_does(trained: Run, tmp_path: Path) -> None:
    before = float(score(trained, tmp_path / "before.csv")["pK"])
    for name, text in (("held", "IC50<100mM"), ("broken", "IC50>1M")):
        known = write_known(tmp_path / f"{name}.csv", trained, ("1a01", text), column="affinity_text")
        after = float(score(trained, tmp_path / f"after_{name}.csv", "--known", known)["pK"])
        assert (after == pytest.approx(before, abs=0.1)) == (name == "held")
        assert after < before + 0.1


def test_what_cannot_be_used_is_named_and_the_rest_counts(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = write_known(tmp_path / "alone.csv", trained, ("1a01", str(HIGH)))
    expected = score(trained, tmp_path / "expected.csv", "--known", alone)["pK"]
    rows = (("1a01", str(HIGH)), ("1a02", ""), ("9zzz", "5.0"), ("1a03", "high"))
    caplog.clear()
    row = score(trained, tmp_path / "found.csv", "--known", write_known(tmp_path / "some.csv", trained, *rows))
    assert row["pK"] == expected
    (warning,) = [one.getMessage() for one in caplog.records if "are not used" in one.getMessage()]
    assert "3 measured ligands are not used" in warning
    for reason in ("neither a pK nor an affinity_text", "9zzz_ligand.sdf", "'high'"):
        assert reason in warning


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("6.0", "6.2"), "one ligand has several values, all count: 1a01 6.00, 1a01 6.20"),
        (("6.0", "9.0"), "values of one ligand contradict each other, all count: 1a01 6.00, 1a01 9.00"),
    ],
)
def test_values_of_one_ligand_are_named(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, values: tuple[str, str], text: str
) -> None:
    known = write_known(tmp_path / "known.csv", trained, *(("1a01", value) for value in values))
    score(trained, tmp_path / "scores.csv", "--known", known)
    assert text in caplog.text


def test_bounds_that_exclude_each_other_contradict(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = (("1a01", "IC50>100uM"), ("1a01", "IC50<100nM"))
    known = write_known(tmp_path / "known.csv", trained, *rows, column="affinity_text")
    score(trained, tmp_path / "scores.csv", "--known", known)
    assert "contradict each other, all count: 1a01 ≤4.00, 1a01 ≥7.00" in caplog.text


def test_tables_that_condition_nothing_are_refused(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = score_options(trained, "1a01")
    tables = {
        "lacks a column with the affinity": write_known(tmp_path / "a.csv", trained, ("1a01", "6"), column="score"),
        "has no rows": write_known(tmp_path / "b.csv", trained),
        "none of its rows can be used": write_known(tmp_path / "c.csv", trained, ("9zzz", "6")),
        "value": write_known(tmp_path / "d.csv", trained, ("1a01", "6"), column="value"),
        "No such file": tmp_path / "absent.csv",
    }
    for text, path in tables.items():
        message = refused(caplog, *options, "--known", path)
        assert text in message
        assert path.name in message


def test_models_that_cannot_be_conditioned_are_refused(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = write_known(tmp_path / "known.csv", trained, ("1a01", "6"))
    alone, mine = tmp_path / "alone.pth.tar", tmp_path / "mine.pth.tar"
    save_checkpoint(alone, {**load_checkpoint(model_of(trained)), "process": None})
    options = ["--known", known, "--num_workers", "0", "--save_model"]
    assert "has no Gaussian process" in refused(caplog, *options, mine, "--checkpoint", alone)
    assert not mine.exists()
    assert scoring_program.main([str(one) for one in (*options, mine, "--checkpoint", model_of(trained))]) == 0
    assert "is conditioned on measured ligands already" in refused(
        caplog, *options, tmp_path / "again.pth.tar", "--checkpoint", mine
    )


def test_the_saved_model_scores_screens_and_explains_alone(trained: Run, tmp_path: Path) -> None:
    known, mine = write_known(tmp_path / "known.csv", trained, ("1a01", str(HIGH))), tmp_path / "new" / "mine.pth.tar"
    expected = score(trained, tmp_path / "expected.csv", "--known", known, "--save_model", mine)
    for number, more in enumerate(([], ["--num_workers", "1"], ["--explain", tmp_path / "why"])):
        assert score(trained, tmp_path / f"{number}.csv", "--checkpoint", mine, *more) == expected
    assert list((tmp_path / "why").rglob("explanation.html"))


def test_several_models_go_into_one_file(trained: Run, tmp_path: Path) -> None:
    known, mine, other = (tmp_path / name for name in ("known.csv", "mine.pth.tar", "other.pth.tar"))
    write_known(known, trained, ("1a01", str(HIGH)))
    state = load_checkpoint(model_of(trained))
    save_checkpoint(other, {**state, "process": {**state["process"], "share": 1.0}})
    both = ["--checkpoint", model_of(trained), other]
    expected = score(trained, tmp_path / "a.csv", *both, "--known", known, "--save_model", mine)
    found = score(trained, tmp_path / "b.csv", "--checkpoint", mine)
    assert (found, len(load_members(mine))) == (expected, 2)
    assert float(found["pK_sd_models"]) >= 0
    models = load_ensemble([mine], "cpu").models
    assert all(isinstance(model, JoinedModel) and model.known is not None for model in models)


def test_a_file_that_is_there_or_an_input_is_not_written_over(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known, mine = write_known(tmp_path / "known.csv", trained, ("1a01", "6")), tmp_path / "mine.pth.tar"
    shutil.copy(model_of(trained), mine)
    before = mine.read_bytes()
    save = ["--known", known, "--num_workers", "0", "--save_model", mine]
    assert "add --overwrite" in refused(caplog, *save, "--checkpoint", model_of(trained))
    assert "mine.pth.tar" in refused(caplog, *save, "--checkpoint", mine, "--overwrite")
    assert mine.read_bytes() == before
    options = [*save, "--checkpoint", model_of(trained), "--overwrite"]
    assert scoring_program.main([str(option) for option in options]) == 0
    assert load_members(mine)[0]["process"]["known"]


def test_no_run_goes_on_from_it(trained: Run, tmp_path: Path) -> None:
    known, folder = write_known(tmp_path / "known.csv", trained, ("1a01", "6")), tmp_path / "checkpoints"
    save = ["--known", known, "--save_model", folder / "checkpoint.pth.tar", "--checkpoint", model_of(trained)]
    assert scoring_program.main([str(option) for option in (*save, "--num_workers", "0")]) == 0
    with pytest.raises(CheckpointError, match="models that only score"):
        newest_checkpoint(folder)


@pytest.mark.fault("K4")
@pytest.mark.parametrize("members", [[], {}, [5], [{}], [{"format": 1}]])
def test_a_file_of_odd_models_is_refused(tmp_path: Path, members: object) -> None:
    write_plain(tmp_path / "odd.pth.tar", {"format": 1, MEMBERS: members})
    with pytest.raises(CheckpointError, match=r"odd\.pth\.tar"):
        load_members(tmp_path / "odd.pth.tar")


def test_a_model_of_the_demo_set_never_mixes_with_others(trained: Run, tmp_path: Path) -> None:
    state, demo = load_checkpoint(model_of(trained)), tmp_path / "demo.pth.tar"
    save_checkpoint(demo, {**state, "dataset": {**state["dataset"], "synthetic": True}})
    assert load_ensemble([demo, demo], "cpu").trained_on_synthetic_data
    for paths in ([demo, model_of(trained)], [model_of(trained), demo]):
        with pytest.raises(CheckpointError, match="synthetic demo set"):
            load_ensemble(paths, "cpu")


def test_the_same_command_goes_on_and_other_measured_values_are_other_work(
    trained: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, output = trained.folder / "data", tmp_path / "scores.csv"
    known = write_known(tmp_path / "known.csv", trained, ("1a01", str(HIGH)))
    other = write_known(tmp_path / "other.csv", trained, ("1a01", "3.0"))
    pairs = [f"{data}/{code}/{code}_pocket.pdb,{data}/{code}/{code}_ligand.sdf" for code in ("1a01", "1a02", "1a03")]
    (tmp_path / "pairs.csv").write_text("\n".join(["protein_path,ligand_path", *pairs, ""]))
    options = ["--pairs", tmp_path / "pairs.csv", "--checkpoint", model_of(trained), "--batch_size", "1"]
    options += ["--num_workers", "0", "--output", output, "--known"]
    monkeypatch.setattr("src.scoring.score_files.SAVE_EVERY_S", -1.0)
    real, shown_then = scoring_program._show, []

    def stop(prediction: object, shown: object, number: int, row: str) -> None:
        if number == 2:
            raise KeyboardInterrupt
        real(prediction, shown, number, row)

    with monkeypatch.context() as patch:
        patch.setattr(scoring_program, "_show", stop)
        assert scoring_program.main([str(option) for option in (*options, known)]) == 130
    assert "other" in refused(caplog, *options, other)
    monkeypatch.setattr(scoring_program, "_show", lambda *of: shown_then.append(of))
    assert scoring_program.main([str(option) for option in (*options, known)]) == 0
    assert 1 <= len(shown_then) < 3  # the rows before the stop are kept
    with open(output, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["ligand"] for row in rows] == ["1a01", "1a02", "1a03"]
