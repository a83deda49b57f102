from __future__ import annotations

from pathlib import Path

import pytest
import torch

from src.checkpoint import BEST, CRASHED, CheckpointError, load_checkpoint
from src.optimization.saving import SaveFlag, on_cpu, saved_if_it_crashes
from tests.training_runs import VALIDATION, make_trainer, train_batches


class ExpectedError(Exception):
    pass


def crash(folder: Path, state: dict | None, error: BaseException) -> None:
    with saved_if_it_crashes(folder / CRASHED, lambda: state, no_faults=(ExpectedError,)):
        raise error


@pytest.fixture
def state(tmp_path: Path) -> dict:
    return make_trainer(tmp_path / "trainer").state_dict()


@pytest.mark.fault("A11")
def test_the_state_is_saved_and_the_fault_goes_on(tmp_path: Path, state: dict) -> None:
    with pytest.raises(IndexError, match="a bug"):
        crash(tmp_path, state, IndexError("a bug"))
    assert load_checkpoint(tmp_path / "CRASHED.pth.tar")["progress"] == state["progress"]


@pytest.mark.parametrize("error", [ExpectedError(), KeyboardInterrupt(), SystemExit()])
def test_what_is_no_fault_saves_nothing(tmp_path: Path, state: dict, error: BaseException) -> None:
    with pytest.raises(type(error)):
        crash(tmp_path, state, error)
    assert not (tmp_path / "CRASHED.pth.tar").exists()


@pytest.mark.fault("A11")
def test_nan_is_not_saved(tmp_path: Path, state: dict, caplog: pytest.LogCaptureFixture) -> None:
    state["model"]["last.bias"][0] = torch.nan
    with pytest.raises(IndexError):
        crash(tmp_path, state, IndexError())
    assert "NaN or Inf" in caplog.text
    assert not (tmp_path / "CRASHED.pth.tar").exists()


@pytest.mark.fault("A11", "B1")
def test_a_late_best_model_is_on_the_disk_before_the_state_of_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path)
    trainer.saver._unsaved_best = {**trainer.state_dict(), "calibration": {"codes": ["the best"]}}
    monkeypatch.setattr(trainer, "_train_epoch", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(train_batches, VALIDATION)
    folder = tmp_path / "checkpoints"
    assert load_checkpoint(folder / BEST)["calibration"] == {"codes": ["the best"]}
    assert load_checkpoint(folder / "CRASHED.pth.tar")["calibration"] is None


@pytest.mark.fault("A11", "B1")
def test_no_state_is_saved_after_a_crash_without_what_must_be_there_first(
    tmp_path: Path, state: dict, caplog: pytest.LogCaptureFixture
) -> None:
    def disk_is_full() -> None:
        raise CheckpointError("No space left on device")

    crash = saved_if_it_crashes(tmp_path / CRASHED, lambda: state, disk_is_full, no_faults=())
    with pytest.raises(IndexError, match="a bug"), crash:
        raise IndexError("a bug")
    assert not (tmp_path / "CRASHED.pth.tar").exists()
    assert "not saved" in caplog.text


def test_a_save_that_fails_does_not_hide_the_fault(
    tmp_path: Path, state: dict, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(IndexError, match="a bug"):
        crash(tmp_path / "absent", state, IndexError("a bug"))
    assert "not saved" in caplog.text


def test_a_copy_on_the_cpu_does_not_change_with_the_weights() -> None:
    weight = torch.ones(2)
    state = {"model": {"weight": weight}, "groups": [{"lr": 0.1, "params": (0, weight)}], "scaler": None}
    copy = on_cpu(state)
    weight += 1
    assert copy["model"]["weight"].tolist() == copy["groups"][0]["params"][1].tolist() == [1.0, 1.0]
    assert (copy["groups"][0]["lr"], copy["scaler"]) == (0.1, None)


def test_the_flag_asks_until_it_is_taken_away(tmp_path: Path) -> None:
    flag = SaveFlag(tmp_path / "SAVE_NOW.flag")
    assert not flag.is_there()
    flag.take_away()
    for _ in range(2):
        flag.path.touch()
        assert flag.is_there()
        flag.take_away()
        assert not flag.path.exists()


def test_a_folder_in_the_place_of_the_flag_asks_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flag = SaveFlag(tmp_path / "SAVE_NOW.flag")
    (flag.path / "mine").mkdir(parents=True)
    assert flag.is_there()
    flag.take_away()
    assert not flag.is_there()
    assert (flag.path / "mine").is_dir()
    assert "SAVE_NOW.flag cannot be removed" in caplog.text
