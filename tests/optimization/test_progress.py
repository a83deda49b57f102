"""Counting in an epoch, judging it, and the history that is written."""

from __future__ import annotations

import csv
import json
import logging
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from src.checkpoint import CheckpointError
from src.optimization.progress import (
    OUTLOOK_AFTER_S,
    Outlook,
    Progress,
    epoch_line,
    read_progress,
    skipped_text,
    step_profiler,
    tensorboard_writer,
    write_history,
)
from src.settings import OutputSettings
from src.system.storage import StorageError, to_plain
from tests.complexes import small_settings

VALIDATION = {"rmse": 1.5, "mae": 1.0, "pearson": 0.25, "spearman": math.nan}


def test_the_rmse_of_an_epoch_by_hand() -> None:
    progress = Progress()
    assert math.isnan(progress.train_rmse)
    progress.squared_error, progress.num_judged = 12.0, 4
    assert progress.train_rmse == pytest.approx(math.sqrt(3.0))


def test_skips_are_counted_by_batch_in_a_row_and_by_code() -> None:
    progress = Progress()
    progress.add_skipped(("1aaa", "1bbb"))
    progress.add_skipped(("1aaa",))
    assert (progress.num_skipped, progress.skipped_in_a_row) == (2, 2)
    assert progress.skipped_codes == {"1aaa": 2, "1bbb": 1}


def test_a_new_epoch_starts_its_sums_and_keeps_the_rest() -> None:
    progress = Progress(step=7, next_batch=5, squared_error=1.0, num_judged=2, num_overflows=1, seconds=3.0)
    progress.add_skipped(("1aaa",))
    progress.judge(1.0)
    progress.start_epoch(1)
    assert (progress.epoch, progress.next_batch, progress.num_judged, progress.num_skipped) == (1, 0, 0, 0)
    assert (progress.squared_error, progress.num_overflows, progress.seconds) == (0.0, 0, 0.0)
    assert (progress.step, progress.best_rmse, progress.skipped_codes) == (7, 1.0, {"1aaa": 1})
    assert progress.skipped_in_a_row == 1  # a run of bad batches may go over the border of an epoch


def test_only_a_lower_finite_score_is_better() -> None:
    progress = Progress()
    scores = [2.0, 2.0, math.nan, 1.5, math.inf, 1.6]
    expected = [True, False, False, True, False, False]
    better, waited = [], []
    for progress.epoch, score in enumerate(scores):
        better.append(progress.judge(score))
        waited.append(progress.epochs_without_improvement)
    assert better == expected
    assert waited == [0, 1, 2, 0, 1, 2]
    assert (progress.best_rmse, progress.best_epoch) == (1.5, 3)


def test_a_first_score_that_is_not_finite_is_never_the_best() -> None:
    progress = Progress()
    assert not progress.judge(math.nan)
    assert not progress.judge(math.inf)
    assert progress.best_epoch == -1


def test_progress_survives_a_checkpoint() -> None:
    progress = Progress(epoch=3, step=9)
    progress.add_skipped(("1aaa",))
    progress.add_row(VALIDATION, 1e-3)
    again = Progress(**to_plain(asdict(progress)))
    assert repr(again) == repr(progress)  # nan is not equal to itself


def test_the_line_of_an_epoch() -> None:
    progress = Progress(epoch=2, squared_error=12.0, num_judged=4, seconds=12.34)
    row = progress.add_row(VALIDATION, 1e-3)
    line = epoch_line(row, 40, is_best=False)
    assert line == ("epoch   3/40  train rmse 1.732  validation rmse 1.500  pearson 0.250  lr 1.0e-03  12.3 s")
    progress.add_skipped(("1aaa",))
    assert epoch_line(progress.add_row(VALIDATION, 1e-3), 40, is_best=True).endswith("12.3 s  skipped 1  best")


def test_history_files_have_a_row_an_epoch_however_often_they_are_written(tmp_path: Path) -> None:
    progress = Progress(squared_error=12.0, num_judged=4)
    for epoch in range(3):
        progress.start_epoch(epoch)
        progress.add_row(VALIDATION, 1e-3)
        write_history(tmp_path / "results", progress.history)
    rows = [json.loads(line) for line in (tmp_path / "results/history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    with open(tmp_path / "results/history.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert table[0]["validation_rmse"] == "1.5"
    assert list(table[0]) == list(rows[0])


def test_progress_comes_back_from_a_checkpoint_as_it_was() -> None:
    progress = Progress(epoch=3, step=9, edge_limit=100)
    progress.add_skipped(("1aaa",))
    progress.add_row(VALIDATION, 1e-3, left_out=2)
    assert repr(read_progress(to_plain(asdict(progress)))) == repr(progress)
    assert read_progress({"epoch": 1}) == Progress(epoch=1)  # of an earlier version, which knew less


@pytest.mark.fault("K5")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evil", 1),
        ("\x1b[2J", 1),
        ("step", "os.system"),
        ("step", True),
        ("epoch", 1.0),
        ("best_rmse", None),
        ("edge_limit", 0.5),
        ("skipped_codes", {"1abc": "x"}),
        ("skipped_codes", [1]),
        ("history", ["row"]),
        ("history", 1),
    ],
)
def test_progress_that_this_program_does_not_write_is_refused(name: str, value: object) -> None:
    with pytest.raises(CheckpointError, match="odd entries: ") as error:
        read_progress({**asdict(Progress()), name: value})
    assert str(error.value).isprintable()


@pytest.mark.fault("D17")
def test_skipped_complexes_are_listed_with_those_met_most_often_first() -> None:
    progress = Progress()
    assert skipped_text(progress) == ""
    for codes in (("1aaa", "1bbb"), ("1bbb", "1ccc"), ("1bbb", "1aaa")):
        progress.add_skipped(codes)
    assert "3 complexes were in batches that were skipped, or were left out alone: 1bbb 3x, 1aaa 2x, 1ccc 1x. " in (
        skipped_text(progress)
    )
    assert "1bbb 3x and 2 more" in skipped_text(progress, most=1)


def test_the_line_of_an_epoch_says_how_many_were_not_validated() -> None:
    row = Progress(epoch=2).add_row(VALIDATION, 1e-3, left_out=2)
    assert row["validation_left_out"] == 2
    assert "validated without 2" in epoch_line(row, 40, is_best=False)
    del row["validation_left_out"]  # as an earlier version wrote it
    assert "without" not in epoch_line(row, 40, is_best=False)


# The profile of a run, which is no part of its training

STEPS = 8  # one to wait for, one to warm up, five to measure, and one more


@pytest.fixture
def output(tmp_path: Path) -> OutputSettings:
    return replace(small_settings(tmp_path).output, profile=True)


def take_steps(output: OutputSettings) -> None:
    with step_profiler(output, 0) as profiler:
        for _ in range(STEPS):
            torch.ones(3).sum()
            profiler.step()


def test_the_profile_names_where_the_time_went(output: OutputSettings) -> None:
    take_steps(output)
    assert "aten::sum" in (Path(output.results_dir) / "profile.txt").read_text(encoding="utf-8")


@pytest.mark.fault("B1")
def test_a_profile_that_the_disk_does_not_take_ends_no_run(
    output: OutputSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, text: str) -> None:
        raise StorageError(f"{path}: not saved: No space left on device")

    monkeypatch.setattr("src.optimization.progress.write_text", full)
    take_steps(output)
    assert "profile.txt: not saved: No space left on device; training goes on without a profile" in caplog.text


@pytest.mark.parametrize(("profile", "step"), [(False, 0), (True, 1)])
def test_only_the_first_steps_of_a_run_that_asks_for_it_are_profiled(
    output: OutputSettings, profile: bool, step: int
) -> None:
    with step_profiler(replace(output, profile=profile), step) as profiler:
        assert profiler is None


def test_the_end_of_a_run_is_told_once_after_some_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outlook, progress = Outlook([10, 10, 12]), Progress(epoch=1, next_batch=4)
    outlook.add(progress, 2, OUTLOOK_AFTER_S / 2)
    assert not caplog.messages
    outlook.add(progress, 3, OUTLOOK_AFTER_S / 2)
    outlook.add(progress, 3, OUTLOOK_AFTER_S)
    (line,) = caplog.messages
    assert line.startswith("18 batches are left; with validation they take a little more than 0:01:12, until about ")


def board_settings(folder: Path, *, wanted: bool = True) -> OutputSettings:
    return replace(small_settings(folder).output, tensorboard=wanted)


def test_tensorboard_has_the_numbers_of_the_history_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / "events.now").touch()

        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            written.append((name, value, epoch))

        def flush(self) -> None:
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    rows = [{"epoch": epoch, "train_rmse": 2.0 / epoch} for epoch in (1, 2)]
    output = board_settings(tmp_path)
    earlier = Path(output.results_dir) / "tensorboard" / "events.earlier"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    tensorboard_writer(output, rows[:1], wanted=True)(rows[1])
    assert written == [("epoch", 1, 1), ("train_rmse", 2.0, 1), ("epoch", 2, 2), ("train_rmse", 1.0, 2)]
    assert [path.name for path in earlier.parent.iterdir()] == ["events.now"]
    for settings, wanted in ((board_settings(tmp_path, wanted=False), True), (output, False)):
        tensorboard_writer(settings, rows, wanted=wanted)(rows[1])
    assert len(written) == 4


def test_a_missing_tensorboard_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    tensorboard_writer(board_settings(tmp_path), [], wanted=True)({"epoch": 1})
    assert caplog.messages == ["tensorboard = True writes nothing: the package is missing (pip install tensorboard)"]
