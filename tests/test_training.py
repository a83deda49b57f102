from __future__ import annotations

import json
import logging
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from src import training
from src.checkpoint import CheckpointError, load_checkpoint, newest_checkpoint, save_checkpoint
from src.evaluation.calibration import calibrate
from src.graph import Batch
from src.optimization import optimizer as optimizer_module
from src.optimization import saving
from src.optimization.optimizer import FINAL_LEARNING_RATE
from src.optimization.progress import write_history
from src.system.storage import StorageError
from src.training import Trainer, TrainingError
from tests.synthetic import random_batch
from tests.training_runs import (
    EPOCHS,
    NUM_BATCHES,
    VALIDATION,
    assert_same,
    fingerprint,
    make_batches,
    make_trainer,
    signal_once,
    train_batches,
)


@pytest.mark.fault("C1", "C2", "C4", "C6", "C8")
@pytest.mark.parametrize("scheduler", ["cosine", "plateau"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_stopped_after_any_batch_ends_with_the_same_bits(
    tmp_path: Path, accumulation: int, scheduler: str
) -> None:
    changes = {"gradient_accumulation_steps": accumulation, "scheduler": scheduler}
    whole = make_trainer(tmp_path / "whole", **changes)
    assert whole.fit(train_batches, VALIDATION) is None
    windows = EPOCHS * math.ceil(NUM_BATCHES / accumulation)
    for stop_after in range(1, windows):
        folder = tmp_path / f"stopped-{stop_after}"
        stopped = make_trainer(folder, **changes)
        stopped.model.spoil = signal_once(lambda trainer=stopped, step=stop_after: trainer.progress.step == step - 1)
        assert stopped.fit(train_batches, VALIDATION) == signal.SIGINT
        resumed = make_trainer(folder, **changes)
        _, state = newest_checkpoint(folder / "checkpoints")
        torch.manual_seed(12345)  # the resumed process has other random numbers until they are restored
        resumed.load_state_dict(state)
        resumed.fit(train_batches, VALIDATION)
        assert_same(fingerprint(resumed), fingerprint(whole))


@pytest.mark.fault("D1", "D2", "D3", "D5")
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_poisoned_batch_is_left_out_of_its_window(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, poison: float, position: int, where: str
) -> None:
    window = make_batches(0)[:4]
    bad = window[position].codes

    def spoil(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        if batch.codes != bad:
            return predicted
        if where == "loss":
            return predicted + poison
        predicted.register_hook(lambda gradient: gradient * poison)
        return predicted * 1.0

    def step(batches: list[Batch], spoiler: Callable | None) -> Trainer:
        trainer = make_trainer(tmp_path)
        trainer.model.dropout, trainer.model.spoil = 0.0, spoiler
        trainer._train_window(batches)
        return trainer

    poisoned = step(window, spoil)
    clean = step([batch for batch in window if batch.codes != bad], None)
    for one, other in zip(poisoned.model.parameters(), clean.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert poisoned.progress.skipped_codes == dict.fromkeys(bad, 1)
    assert all(code in caplog.text for code in bad)
    assert poisoned.progress.num_judged == clean.progress.num_judged


@pytest.mark.fault("D6")
def test_a_window_without_a_good_batch_moves_nothing(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.model.spoil = lambda batch, predicted: predicted * math.nan
    trainer._train_window(make_batches(0)[:2])
    assert trainer.progress.step == 0
    assert trainer.scheduler.last_epoch == 0
    assert trainer.optimizer.state_dict()["state"] == {}
    for one, other in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.fault("D7")
def test_a_run_of_nothing_but_nan_stops_and_says_why(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.spoil = lambda batch, predicted: predicted * math.nan
    with pytest.raises(TrainingError, match=r"3 of 5 batches of epoch 1 skipped.*e0b0c0.*learning_rate"):
        trainer.fit(train_batches, VALIDATION)
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_skips_in_a_row_stop_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_skipped_in_a_row=2, max_skipped_fraction=1.0)
    trainer.model.spoil = lambda batch, predicted: predicted * math.inf
    with pytest.raises(TrainingError, match="2 in a row"):
        trainer.fit(train_batches, VALIDATION)


@pytest.mark.fault("D4", "D8")
def test_a_gradient_scale_that_only_falls_stops_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, precision="fp16", max_skipped_in_a_row=100, max_skipped_fraction=1.0, epochs=20)
    scale = trainer.scaler.get_scale()
    trainer.model.spoil = _endless_overflow
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(TrainingError, match="gradient scale fell below 1"):
        trainer.fit(train_batches, VALIDATION)
    assert 0 < trainer.scaler.get_scale() < scale
    for one, other in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(one, other)


def _endless_overflow(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
    """Gradients that only half precision cannot hold."""
    if torch.is_autocast_enabled("cpu"):
        predicted.register_hook(lambda gradient: gradient * math.inf)
    return predicted * 1.0


@pytest.mark.fault("D3")
def test_one_poisoned_complex_neither_lowers_the_fp16_scale_nor_stops_the_others(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    bad = make_batches(0)[1].codes

    def spoil(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        if batch.codes == bad:
            predicted.register_hook(lambda gradient: gradient * math.nan)
        return predicted * 1.0

    trainer.model.spoil = spoil
    trainer._train_window(make_batches(0)[:3])
    assert trainer.progress.skipped_codes == dict.fromkeys(bad, 1)
    assert trainer.progress.step == 1
    assert trainer.scaler.get_scale() == 1.0
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


@pytest.mark.fault("D10")
def test_huge_gradients_are_clipped_and_not_skipped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, gradient_clip_norm=0.5)
    trainer.model.spoil = lambda batch, predicted: _times_gradient(predicted, 1e20)
    trainer._train_window(make_batches(0)[:1])
    assert trainer.progress.skipped_codes == {}
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]  # 0.1 times the gradient
    assert torch.nn.utils.get_total_norm(moments).item() == pytest.approx(0.1 * 0.5, rel=1e-4)


def _times_gradient(predicted: torch.Tensor, factor: float) -> torch.Tensor:
    predicted.register_hook(lambda gradient: gradient * factor)
    return predicted * 1.0


@pytest.mark.fault("B1")
def test_a_disk_that_is_full_for_a_while_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = save_checkpoint, []

    def failing(path: Path, state: dict, **options: bool) -> None:
        calls.append(path.name)
        if len(calls) in (1, 2):
            raise CheckpointError(f"{path}: not saved: No space left on device")
        real(path, state, **options)

    monkeypatch.setattr("src.optimization.saving.save_checkpoint", failing)
    trainer = make_trainer(tmp_path)
    assert trainer.fit(train_batches, VALIDATION) is None
    assert trainer.finished
    assert "No space left on device; training goes on (failure 2 of 3)" in caplog.text
    assert newest_checkpoint(tmp_path / "checkpoints")[1]["progress"]["epoch"] == EPOCHS


@pytest.mark.parametrize("times", [1, 2])
def test_the_best_model_is_written_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The first epoch is the best, and no later state may be on the disk without it."""
    real, failures = save_checkpoint, []

    def failing(path: Path, state: dict, **options: bool) -> None:
        if path.name == "model_best.pth.tar" and len(failures) < times:
            failures.append(path.name)
            raise CheckpointError(f"{path}: not saved: No space left on device")
        real(path, state, **options)
        assert (path.parent / "model_best.pth.tar").exists()

    scores = iter([0.5, 0.6, 0.7])
    rest = {"mae": 0.0, "pearson": 0.0, "spearman": 0.0}
    monkeypatch.setattr("src.optimization.saving.save_checkpoint", failing)
    monkeypatch.setattr("src.training.metrics", lambda predicted, measured: {"rmse": next(scores), **rest})
    trainer = make_trainer(tmp_path)
    assert trainer.fit(train_batches, VALIDATION) is None
    progress = load_checkpoint(tmp_path / "checkpoints/model_best.pth.tar")["progress"]
    assert (progress["epoch"], progress["best_rmse"]) == (1, 0.5)
    assert newest_checkpoint(tmp_path / "checkpoints")[1]["progress"]["epoch"] == EPOCHS


@pytest.mark.parametrize("call", [1, EPOCHS])
def test_a_history_that_cannot_be_written_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: int
) -> None:
    real, calls = write_history, []

    def failing(folder: Path, history: list[dict]) -> None:
        calls.append(folder)
        if len(calls) == call:
            raise StorageError("history.csv: not saved: No space left on device")
        real(folder, history)

    monkeypatch.setattr("src.optimization.saving.write_history", failing)
    assert make_trainer(tmp_path).fit(train_batches, VALIDATION) is None
    assert "No space left on device; training goes on" in caplog.text
    assert len((tmp_path / "results/history.csv").read_text().splitlines()) == 1 + EPOCHS


@pytest.mark.fault("B1")
def test_a_disk_that_stays_full_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path, *_: object, **__: object) -> None:
        raise CheckpointError("No space left on device")

    monkeypatch.setattr("src.optimization.saving.save_checkpoint", failing)
    trainer = make_trainer(tmp_path, epochs=20)
    with pytest.raises(CheckpointError):
        trainer.fit(train_batches, VALIDATION)
    assert trainer.progress.epoch <= 3


@pytest.mark.fault("D11")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains(tmp_path: Path, precision: str) -> None:
    trainer = make_trainer(tmp_path, precision=precision, epochs=6)
    trainer.fit(train_batches, VALIDATION)
    assert trainer.scaler.is_enabled() == (precision == "fp16")
    overflows = sum(row["fp16_overflows"] for row in trainer.progress.history)  # while the scale comes down
    assert trainer.progress.step == 6 * NUM_BATCHES - overflows
    assert overflows < 16 if precision == "fp16" else overflows == 0
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


@pytest.mark.fault("D13")
def test_early_stopping_and_best_model(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=50, early_stopping_patience=2)
    scores = iter([1.0, 0.5, math.nan, 0.7])
    rest = {"mae": 0.0, "pearson": 0.0, "spearman": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.training.metrics", lambda predicted, measured: {"rmse": next(scores), **rest})
        trainer.fit(train_batches, VALIDATION)
    assert trainer.progress.epoch == 4
    assert (trainer.progress.best_epoch, trainer.progress.best_rmse) == (1, 0.5)
    assert trainer.finished


def test_history_is_written_once_a_row(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit(train_batches, VALIDATION)
    rows = [json.loads(line) for line in (tmp_path / "results/history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert len((tmp_path / "results/history.csv").read_text().splitlines()) == 4
    assert all(math.isfinite(row["validation_rmse"]) for row in rows)


def test_the_flag_file_saves_and_goes(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    (tmp_path / "SAVE_NOW.flag").touch()
    seen = []

    def look(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        seen.append((tmp_path / "checkpoints/checkpoint.pth.tar").exists())
        return predicted

    trainer.model.spoil = look
    trainer.fit(train_batches, VALIDATION)
    assert seen[:2] == [False, True]
    assert not (tmp_path / "SAVE_NOW.flag").exists()


@pytest.mark.fault("A5")
def test_sigusr1_saves_after_the_step_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = []
    monkeypatch.setattr(
        "src.optimization.saving.save_checkpoint",
        lambda path, state, keep_previous: positions.append((path.name, state["progress"]["next_batch"])),
    )
    trainer = make_trainer(tmp_path, epochs=1, checkpoint_every_batches=0)

    def ask(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        if batch.codes[0].startswith("e0b2"):
            os.kill(os.getpid(), signal.SIGUSR1)
        return predicted

    trainer.model.spoil = ask
    assert trainer.fit(train_batches, VALIDATION) is None
    assert positions == [("checkpoint.pth.tar", 3), ("model_best.pth.tar", 0), ("checkpoint.pth.tar", 0)]


def test_a_save_that_was_asked_for_and_failed_is_not_called_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fail_once(monkeypatch, saving, "save_checkpoint", error=CheckpointError("No space left on device"))
    (tmp_path / "SAVE_NOW.flag").touch()
    with caplog.at_level(logging.INFO):
        make_trainer(tmp_path).fit(train_batches, VALIDATION)
    assert "SAVE_NOW.flag: not saved to" in caplog.text
    assert "SAVE_NOW.flag: saved to" not in caplog.text


def test_a_folder_of_the_flags_name_saves_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "SAVE_NOW.flag").mkdir()
    with caplog.at_level("INFO"):
        make_trainer(tmp_path, epochs=1).fit(train_batches, VALIDATION)
    assert caplog.text.count("SAVE_NOW.flag: saved to") == 1
    assert caplog.text.count("SAVE_NOW.flag cannot be removed") == 1


@pytest.mark.fault("A11", "C10")
def test_a_bug_in_validation_leaves_the_random_numbers_of_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_trainer(tmp_path / "whole")
    whole.fit(train_batches, VALIDATION)
    real = training.predict_batches
    crashed = make_trainer(tmp_path / "crashed")
    monkeypatch.setattr("src.training.predict_batches", lambda *_, **__: torch.rand(3) / (1 // 0))
    with pytest.raises(ZeroDivisionError):
        crashed.fit(train_batches, VALIDATION)
    monkeypatch.setattr("src.training.predict_batches", real)
    resumed = make_trainer(tmp_path / "crashed")
    path, state = newest_checkpoint(tmp_path / "crashed/checkpoints")
    assert path.name == "CRASHED.pth.tar"
    resumed.load_state_dict(state)
    resumed.fit(train_batches, VALIDATION)
    assert_same(fingerprint(resumed), fingerprint(whole))


def test_checkpoints_come_every_so_many_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = []
    monkeypatch.setattr(
        "src.optimization.saving.save_checkpoint",
        lambda path, state, keep_previous: positions.append(
            (path.name, state["progress"]["next_batch"], keep_previous)
        ),
    )
    make_trainer(tmp_path, epochs=1, checkpoint_every_batches=2).fit(train_batches, VALIDATION)
    assert positions == [
        ("checkpoint.pth.tar", 2, True),
        ("checkpoint.pth.tar", 4, True),
        ("model_best.pth.tar", 0, False),
        ("checkpoint.pth.tar", 0, True),
    ]


def test_sigterm_stops_too(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)

    def terminate(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return predicted

    trainer.model.spoil = terminate
    assert trainer.fit(train_batches, VALIDATION) == signal.SIGTERM
    assert trainer.progress.next_batch == 1
    assert (tmp_path / "checkpoints/INTERRUPTED.pth.tar").exists()


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)

    def interrupt_twice(batch: Batch, predicted: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return predicted

    trainer.model.spoil = interrupt_twice
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(train_batches, VALIDATION)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture(params=["fused", "each weight by itself"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the optimizer moves the weights; fused is what it is on a CUDA GPU."""
    monkeypatch.setattr(optimizer_module, "FUSED_ON", ("cpu",) if request.param == "fused" else ())


@pytest.mark.fault("E2")
def test_memory_that_runs_out_while_the_optimizer_allocates_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: None
) -> None:
    """Parameter after parameter; the next try must not find half a state."""
    trainer, clean = make_trainer(tmp_path), make_trainer(tmp_path)
    trainer.model.dropout = clean.model.dropout = 0.0
    clean._train_window(make_batches(0))
    fail_once(monkeypatch, torch, "zeros_like", call=4)
    trainer._train_window(make_batches(0))
    assert_same(trainer.state_dict()["optimizer"], clean.state_dict()["optimizer"])
    assert_same(trainer.model.state_dict(), clean.model.state_dict())
    assert trainer.progress.step == 1


@pytest.mark.fault("E2")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("earlier_steps", [0, 1])
def test_a_step_that_moved_nothing_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: None, earlier_steps: int, precision: str
) -> None:
    def steps(*, fails: bool) -> Trainer:
        trainer = make_trainer(tmp_path, precision=precision)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=16.0, enabled=precision == "fp16")
        trainer.model.dropout = 0.0
        for number in range(earlier_steps + 1):
            if fails and number == earlier_steps:
                fail_once(monkeypatch, torch.optim.Adam, "_init_group")
            trainer._train_window(make_batches(number))
        assert trainer.progress.step == earlier_steps + 1
        return trainer

    assert_same(fingerprint(steps(fails=True)), fingerprint(steps(fails=False)))


@pytest.mark.fault("E2")
def test_a_step_that_was_cut_off_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path)
    trainer.fit(lambda epoch, first_batch: make_batches(0), VALIDATION)
    path = tmp_path / "checkpoints/checkpoint.pth.tar"
    whole = path.read_bytes()
    trainer.progress.start_epoch(0)
    fail_once(monkeypatch, torch.Tensor, "sqrt", call=3)  # Adam's denominator, of the third parameter
    with pytest.raises(TrainingError, match=r"no memory for the step of the optimizer.*last checkpoint is whole"):
        trainer.fit(train_batches, VALIDATION)
    assert path.read_bytes() == whole
    counts = {state["step"].item() for state in trainer.optimizer.state.values()}
    assert counts == {EPOCHS * NUM_BATCHES, EPOCHS * NUM_BATCHES + 1}  # it was cut off half way, and left


@pytest.mark.fault("E2")
def test_a_fused_step_that_may_have_moved_weights_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch counts the steps that it writes before the kernel runs, and nothing of what the kernel writes."""
    monkeypatch.setattr(optimizer_module, "FUSED_ON", ("cpu",))
    trainer = make_trainer(tmp_path)
    fail_once(monkeypatch, torch, "_fused_adam_")
    with pytest.raises(TrainingError, match="no memory for the step of the optimizer"):
        trainer._train_window(make_batches(0))
    assert {state["step"].item() for state in trainer.optimizer.state.values()} == {1.0}


@pytest.mark.fault("C1")
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("now_fused", [False, True])
def test_a_run_goes_on_from_a_checkpoint_of_the_other_form_of_the_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, now_fused: bool
) -> None:
    def trained(folder: str, fused: bool, epochs: int = EPOCHS) -> Trainer:
        monkeypatch.setattr(optimizer_module, "FUSED_ON", ("cpu",) if fused else ())
        trainer = make_trainer(tmp_path / folder, optimizer=optimizer, epochs=epochs, scheduler="plateau")
        if epochs == EPOCHS:
            start = load_checkpoint(tmp_path / "first/checkpoints/checkpoint.pth.tar")
            trainer.load_state_dict(start)
            assert_same(trainer.optimizer.state_dict()["state"], start["optimizer"]["state"])
        trainer.fit(train_batches, VALIDATION)
        assert trainer.optimizer.param_groups[0]["fused"] is (True if fused else None)
        return trainer

    trained("first", not now_fused, epochs=1)
    other, same = (trained(f"then-{fused}", fused) for fused in (now_fused, not now_fused))
    assert other.progress.step == EPOCHS * NUM_BATCHES
    for one, expected in zip(other.model.parameters(), same.model.parameters(), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.fault("E2")
def test_a_step_for_which_there_is_never_memory_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: None
) -> None:
    trainer = make_trainer(tmp_path)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    fail_once(monkeypatch, torch, "zeros_like", call=1, times=100)
    with pytest.raises(TrainingError, match=r"no memory for the step of the optimizer.*visnet_hidden_channels"):
        trainer._train_window(make_batches(0)[:1])
    for one, other in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(one, other)


def fail_once(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    *,
    call: int = 1,
    times: int = 1,
    error: Exception | None = None,
) -> None:
    """Let memory run out in this call of a function, and in the calls after it as often as is said."""
    real, calls = getattr(owner, name), []

    def failing(*arguments: object, **options: object) -> object:
        calls.append(name)
        if call <= len(calls) < call + times:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


def test_epochs_may_have_different_numbers_of_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, counts = [], [5, 3, 4]
    monkeypatch.setattr(
        "src.optimization.saving.save_checkpoint",
        lambda path, state, keep_previous: saved.append((state["progress"]["epoch"], state["progress"]["next_batch"])),
    )
    made = make_trainer(tmp_path, scheduler="cosine", warmup_epochs=0, checkpoint_every_batches=3)
    trainer = Trainer(made.model, made.settings, made.output, device=made.device, num_batches=counts, facts=made.facts)
    trainer.fit(lambda epoch, first: make_batches(epoch)[first : counts[epoch]], VALIDATION)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(FINAL_LEARNING_RATE * made.settings.learning_rate)
    assert [position for position in saved if position[1]] == [(0, 3), (2, 3)]  # 3 is the last batch of the second


def test_the_best_model_carries_the_width_of_its_own_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that goes on has that of the epoch before, until its next one ends."""
    judged = []
    monkeypatch.setattr("src.training.calibrate", lambda errors: judged.append(errors) or calibrate(errors))
    trainer = make_trainer(tmp_path)
    trainer.fit(train_batches, [random_batch(12, seed=99, num_ligand_atoms=3, num_pocket_atoms=6)])
    best = load_checkpoint(tmp_path / "checkpoints" / "model_best.pth.tar")
    rows = best["progress"]["history"]
    errors = judged[len(rows) - 1]
    assert float(np.sqrt(np.mean(errors**2))) == pytest.approx(rows[-1]["validation_rmse"], rel=1e-5)
    assert best["calibration"] == calibrate(errors).state_dict()
    latest = load_checkpoint(tmp_path / "checkpoints" / "checkpoint.pth.tar")
    again = make_trainer(tmp_path / "again")
    again.load_state_dict(latest)
    assert_same(again.state_dict()["calibration"], latest["calibration"])
    again.load_state_dict({**latest, "process": {"share": 0.5}})
    assert again.calibration is None  # it is of a network joined with a process, which this trainer does not have
    again.load_state_dict({name: part for name, part in latest.items() if name != "calibration"})
    assert again.calibration is None  # a checkpoint of an earlier version
