"""What must not poison a run: NaN, infinity, overflow and complexes that do not fit, with the model that is trained.

test_training.py and test_gradients.py have the same faults for every scheduler, place and kind of error.
"""

from __future__ import annotations

import copy
import logging
import math
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.checkpoint import has_finite_weights, newest_checkpoint
from src.graph import Batch
from src.hardware.inference import predict_batches
from src.hardware.out_of_memory import num_edges, parts_within
from src.model import AffinityModel, build_model
from src.optimization.progress import skipped_text
from src.training import Trainer, TrainingError
from tests.complexes import write_dataset
from tests.synthetic import batch_of, random_batch, random_complex, tiny_settings
from tests.training_runs import (
    CODES,
    EPOCHS,
    NUM_BATCHES,
    VALIDATION,
    Run,
    assert_same,
    fingerprint,
    make_batches,
    make_trainer,
    signal_once,
    train_batches,
)

NAN, INF = math.nan, math.inf


def real_trainer(folder: Path, *, dropout: float = 0.0, **changes: object) -> Trainer:
    """A trainer of the network that main.py trains, with every other part as in tests/test_training.py."""
    made = make_trainer(folder, **changes)
    torch.manual_seed(0)
    model = build_model(tiny_settings(num_layers=2, dropout=dropout))
    model.set_label_scale(6.0, 1.5)
    return Trainer(
        model, made.settings, made.output, device=made.device, num_batches=made.num_batches, facts=made.facts
    )


def poisoned(batch: Batch, field: str, value: float) -> Batch:
    """The batch with one number of one field replaced."""
    tensor = getattr(batch, field).clone()
    tensor.view(-1)[0] = value
    return replace(batch, **{field: tensor})


def weights_and_buffers(trainer: Trainer) -> dict[str, torch.Tensor]:
    return copy.deepcopy(trainer.model.state_dict())


def all_but_progress(trainer: Trainer) -> dict:
    return copy.deepcopy({key: value for key, value in trainer.state_dict().items() if key != "progress"})


def is_finite(trainer: Trainer) -> bool:
    return has_finite_weights(trainer.state_dict())


# NaN and infinity in what a batch holds


@pytest.mark.fault("D1", "D2", "D5", "D9")
@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("pos", NAN), ("pos", INF), ("fade", NAN), ("fade", INF), ("pk", NAN), ("pk", INF), ("pk", -INF)),
        ("pk", 1e20),  # the loss is infinite, the gradient is not
    ],
)
def test_a_number_that_is_none_costs_its_batch_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str, value: float, position: int
) -> None:
    window = make_batches(0)[:4]
    bad = poisoned(window[position], field, value)
    trainer, clean = real_trainer(tmp_path), real_trainer(tmp_path)
    trainer._train_window([bad if place == position else batch for place, batch in enumerate(window)])
    clean._train_window([batch for place, batch in enumerate(window) if place != position])
    for name, tensor in clean.model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)
    assert is_finite(trainer)
    assert trainer.progress.skipped_codes == dict.fromkeys(bad.codes, 1)
    assert trainer.progress.num_judged == clean.progress.num_judged == 6
    assert all(code in caplog.text for code in bad.codes)


@pytest.mark.fault("D6")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_window_of_nothing_but_poison_leaves_every_bit_as_it_was(tmp_path: Path, precision: str) -> None:
    trainer = real_trainer(tmp_path, precision=precision, max_skipped_fraction=1.0)
    trainer._train_window(make_batches(0)[:2])  # the optimizer and the average have a state
    before = all_but_progress(trainer)
    trainer._train_window([poisoned(batch, "pos", NAN) for batch in make_batches(1)[:4]])
    assert_same(all_but_progress(trainer), before)
    assert trainer.progress.num_skipped == 4
    assert trainer.scaler.is_enabled() == (precision == "fp16")


@pytest.mark.fault("D4", "D11")
def test_an_overflow_halves_the_scale_and_moves_neither_weights_nor_schedule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = AffinityModel.forward

    def overflowing(model: AffinityModel, batch: Batch) -> torch.Tensor:
        """Gradients that only half precision cannot hold."""
        predicted = forward(model, batch)
        if torch.is_autocast_enabled("cpu"):
            predicted.register_hook(lambda gradient: gradient * INF)
        return predicted * 1.0

    trainer = real_trainer(tmp_path, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    trainer._train_window(make_batches(0)[:2])
    assert (trainer.progress.step, trainer.scaler.get_scale()) == (1, 16.0)
    before = all_but_progress(trainer)
    monkeypatch.setattr(AffinityModel, "forward", overflowing)
    trainer._train_window(make_batches(1)[:2])
    assert trainer.scaler.get_scale() == 8.0
    for part in ("model", "ema", "optimizer", "scheduler"):
        assert_same(all_but_progress(trainer)[part], before[part])
    assert (trainer.progress.step, trainer.progress.num_overflows, trainer.progress.skipped_codes) == (1, 1, {})


@pytest.mark.fault("D7")
@pytest.mark.parametrize("field", ["pk", "pos"])
def test_poison_in_every_batch_ends_the_run_in_the_first_epoch(tmp_path: Path, field: str) -> None:
    trainer = real_trainer(tmp_path)
    before = weights_and_buffers(trainer)
    with pytest.raises(TrainingError, match=r"of epoch 1 skipped"):
        trainer.fit(lambda *_: [poisoned(batch, field, NAN) for batch in make_batches(0)], VALIDATION)
    assert_same(weights_and_buffers(trainer), before)
    assert newest_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.fault("D10")
def test_a_loss_near_the_largest_number_is_clipped_and_used(tmp_path: Path) -> None:
    trainer = real_trainer(tmp_path)
    window = make_batches(0)[:2]
    trainer._train_window([replace(batch, pk=batch.pk * 0 + 1e15) for batch in window])  # the loss is 1e30
    assert trainer.progress.num_judged == 4
    assert trainer.progress.step == 1
    assert is_finite(trainer)


@pytest.mark.fault("D15", "D16")
def test_a_lone_atom_without_edges_trains_in_a_batch_of_its_own(tmp_path: Path) -> None:
    lone = batch_of([random_complex(0, num_ligand_atoms=1, num_pocket_atoms=0)], torch.tensor([5.0]))
    assert lone.source.numel() == 0
    trainer = real_trainer(tmp_path)
    trainer._train_window([lone])
    assert (trainer.progress.step, trainer.progress.num_judged) == (1, 1)
    assert is_finite(trainer)


# A score that is none


@pytest.mark.fault("D13")
@pytest.mark.parametrize("scheduler", ["cosine", "plateau"])
def test_a_validation_score_that_is_none_is_said_and_fools_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    trainer = real_trainer(tmp_path, epochs=6, scheduler=scheduler, plateau_patience=1, learning_rate=1e-2)
    scores = iter([2.0, NAN, NAN, NAN, 1.5, NAN])
    rest = {"mae": 0.0, "pearson": 0.0, "spearman": 0.0}
    monkeypatch.setattr("src.training.metrics", lambda *_: {"rmse": next(scores), **rest})
    trainer.fit(train_batches, VALIDATION)
    assert (trainer.progress.best_epoch, trainer.progress.best_rmse) == (4, 1.5)
    assert trainer.progress.epochs_without_improvement == 1
    assert caplog.text.count("the validation RMSE is not a number") == 4
    if scheduler == "plateau":  # two epochs of three without a better score are one more than the patience
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-2)
        assert trainer.scheduler.best == 1.5


@pytest.mark.fault("D13")
def test_a_run_without_one_score_has_no_best_model_and_is_no_success(tmp_path: Path) -> None:
    trainer = real_trainer(tmp_path)
    nowhere = [poisoned(batch, "pos", NAN) for batch in VALIDATION]
    with pytest.raises(TrainingError, match="there is no best model"):
        trainer.fit(train_batches, nowhere)
    assert not (tmp_path / "checkpoints/model_best.pth.tar").exists()
    assert newest_checkpoint(tmp_path / "checkpoints")[1]["progress"]["epoch"] == EPOCHS  # what was learned is kept


# The same complex again and again


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_dataset(tmp_path / "data", CODES)
    return Run(tmp_path)


@pytest.mark.fault("D17")
def test_a_complex_that_is_bad_in_each_epoch_is_named_in_each_and_at_the_end(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    forward, bad = AffinityModel.forward, []

    def poisonous(model: AffinityModel, batch: Batch) -> torch.Tensor:
        if model.training and not bad:
            bad.append(batch.codes[0])
        return forward(model, batch) * (NAN if model.training and bad[0] in batch.codes else 1.0)

    monkeypatch.setattr(AffinityModel, "forward", poisonous)
    with caplog.at_level(logging.INFO):
        assert run.train(epochs=3, batch_size=2) == 0
    lines = [record.getMessage() for record in caplog.records]
    for epoch in (1, 2, 3):
        assert sum(line.startswith(f"epoch {epoch}: batch skipped") and bad[0] in line for line in lines) == 1
    (end,) = [number for number, line in enumerate(lines) if "take them out of the index" in line]
    assert f"left out alone: {bad[0]} 3x" in lines[end]  # first, as it is met most often
    assert end > max(number for number, line in enumerate(lines) if line.startswith("epoch   3/3"))


def test_a_run_that_skipped_nothing_lists_nothing(tmp_path: Path) -> None:
    trainer = real_trainer(tmp_path, epochs=1)
    trainer.fit(train_batches, VALIDATION)
    assert skipped_text(trainer.progress) == ""


# Going on from a checkpoint


def stopped_and_resumed(folder: Path, step: int, batches: object = train_batches, **changes: object) -> Trainer:
    """A run that is stopped at an optimizer step and continued in a trainer that had other random numbers."""
    stopped = make_trainer(folder, **changes)
    stopped.model.spoil = signal_once(lambda: stopped.progress.step == step)
    assert stopped.fit(batches, VALIDATION) == signal.SIGINT
    resumed = make_trainer(folder, **changes)
    torch.manual_seed(12345)
    resumed.load_state_dict(newest_checkpoint(folder / "checkpoints")[1])
    assert resumed.fit(batches, VALIDATION) is None
    return resumed


@pytest.mark.fault("C9")
@pytest.mark.parametrize("position", range(NUM_BATCHES))
def test_a_skipped_batch_before_the_checkpoint_moves_no_position(tmp_path: Path, position: int) -> None:
    def batches(epoch: int, first_batch: int) -> Iterable[Batch]:
        made = make_batches(epoch)
        made[position] = poisoned(made[position], "pos", NAN)
        return made[first_batch:]

    whole = make_trainer(tmp_path / "whole")
    whole.fit(batches, VALIDATION)
    assert sum(row["skipped_batches"] for row in whole.progress.history) == EPOCHS
    for step in (1, 3, 4, 5):
        resumed = stopped_and_resumed(tmp_path / f"stopped-{step}", step, batches)
        assert_same(fingerprint(resumed), fingerprint(whole))


@pytest.mark.fault("C4")
@pytest.mark.parametrize("step", range(1, 7))
def test_ten_batches_in_windows_of_four_go_on_in_the_right_window(tmp_path: Path, step: int) -> None:
    def batches(epoch: int, first_batch: int) -> Iterable[Batch]:
        return [*make_batches(epoch), *make_batches(epoch + 10)][first_batch:]

    def trainer(folder: Path) -> Trainer:
        made = make_trainer(folder, gradient_accumulation_steps=4)
        model, parts = made.model, {"device": made.device, "facts": made.facts}
        return Trainer(model, made.settings, made.output, num_batches=[10] * EPOCHS, **parts)

    whole = trainer(tmp_path / "whole")
    whole.fit(batches, VALIDATION)
    assert whole.progress.step == 3 * EPOCHS
    stopped = trainer(tmp_path / "stopped")
    stopped.model.spoil = signal_once(lambda: stopped.progress.step == step)
    stopped.fit(batches, VALIDATION)
    assert stopped.progress.next_batch == [4, 8, 10][step % 3]
    resumed = trainer(tmp_path / "stopped")
    torch.manual_seed(12345)
    resumed.load_state_dict(newest_checkpoint(tmp_path / "stopped/checkpoints")[1])
    resumed.fit(batches, VALIDATION)
    assert_same(fingerprint(resumed), fingerprint(whole))


@pytest.mark.fault("C13")
@pytest.mark.parametrize("step", [1, 4, 7])
def test_random_numbers_are_back_before_the_first_batch_is_made(tmp_path: Path, step: int) -> None:
    def jiggled(epoch: int, first_batch: int) -> Iterator[Batch]:
        for batch in make_batches(epoch)[first_batch:]:
            yield replace(batch, pos=batch.pos + 0.1 * torch.randn(batch.pos.shape))

    whole = make_trainer(tmp_path / "whole")
    whole.fit(jiggled, VALIDATION)
    assert_same(fingerprint(stopped_and_resumed(tmp_path / "stopped", step, jiggled)), fingerprint(whole))


@pytest.mark.fault("C10")
def test_validating_on_more_does_not_change_what_is_learned(tmp_path: Path) -> None:
    def weights(validation: list[Batch]) -> dict[str, torch.Tensor]:
        trainer = real_trainer(tmp_path, dropout=0.3)
        trainer.fit(train_batches, validation)
        return trainer.model.state_dict()

    assert_same(weights(VALIDATION), weights([*VALIDATION, *make_batches(7)]))


@pytest.fixture(scope="module")
def with_one_thread(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return end_of_a_run(tmp_path_factory.mktemp("one"))


def end_of_a_run(folder: Path) -> dict:
    trainer = real_trainer(folder, dropout=0.1)
    trainer.fit(train_batches, VALIDATION)
    return fingerprint(trainer)


@pytest.mark.fault("C14")
def test_two_fresh_runs_end_with_the_same_bits(tmp_path: Path, with_one_thread: dict) -> None:
    assert_same(end_of_a_run(tmp_path), with_one_thread)


@pytest.mark.fault("C14")
def test_more_threads_add_in_another_order_but_always_in_the_same(tmp_path: Path, with_one_thread: dict) -> None:
    torch.set_num_threads(2)
    try:
        first, second = end_of_a_run(tmp_path / "first"), end_of_a_run(tmp_path / "second")
    finally:
        torch.set_num_threads(1)
    assert_same(first, second)
    for name, value in with_one_thread["model"].items():
        torch.testing.assert_close(first["model"][name], value, atol=1e-2, rtol=1e-2)


# Complexes that do not fit


LARGE = random_batch(1, seed=5, num_ligand_atoms=8, num_pocket_atoms=30)
SMALL = [random_batch(2, seed=seed, num_ligand_atoms=3, num_pocket_atoms=6) for seed in (97, 98)]


def with_little_memory(monkeypatch: pytest.MonkeyPatch, is_full: object) -> None:
    """Let memory run out in the forward pass of batches for which is_full(model, batch)."""
    forward = AffinityModel.forward

    def limited(model: AffinityModel, batch: Batch) -> torch.Tensor:
        if is_full(model, batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(model, batch)

    monkeypatch.setattr(AffinityModel, "forward", limited)


@pytest.mark.fault("E3")
def test_a_complex_of_the_validation_set_that_does_not_fit_is_named_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    smallest = max(num_edges(part) for batch in SMALL for part in parts_within(batch, 0))
    (code,) = LARGE.codes
    without, trainer = real_trainer(tmp_path / "without"), real_trainer(tmp_path / "with")
    without.fit(train_batches, SMALL)
    with_little_memory(monkeypatch, lambda model, batch: not model.training and num_edges(batch) > smallest)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        trainer.fit(train_batches, [SMALL[0], LARGE, SMALL[1]])
    assert [row["validation_left_out"] for row in trainer.progress.history] == [1] * EPOCHS
    assert [row["validation_left_out"] for row in without.progress.history] == [0] * EPOCHS
    for one, other in zip(trainer.progress.history, without.progress.history, strict=True):
        assert one["validation_rmse"] == pytest.approx(other["validation_rmse"], abs=1e-5)
    named = [line for line in caplog.messages if line.startswith(f"left out, {code} alone (38 atoms")]
    assert len(named) == EPOCHS
    assert "validated without 1" in caplog.text


@pytest.mark.fault("E3")
@pytest.mark.parametrize("place", range(5))
def test_a_complex_that_is_not_predicted_keeps_its_place(place: int, caplog: pytest.LogCaptureFixture) -> None:
    graphs = [random_complex(number, num_ligand_atoms=4, num_pocket_atoms=12) for number in range(5)]
    batches = [batch_of(graphs[:3], torch.arange(3.0)), batch_of(graphs[3:], torch.arange(3.0, 5.0))]
    model = build_model(tiny_settings(num_layers=1))
    device, left_out = torch.device("cpu"), []
    expected, _ = predict_batches(model, batches, device)
    with pytest.MonkeyPatch.context() as patch:
        with_little_memory(patch, lambda _, batch: graphs[place].code in batch.codes)
        predicted, measured = predict_batches(model, batches, device, left_out=left_out)
    assert left_out == [place]
    assert measured.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert math.isnan(predicted[place])
    others = [number for number in range(5) if number != place]
    assert predicted[others] == pytest.approx(expected[others], abs=1e-5)
    assert f"left out, {graphs[place].code} alone (16 atoms" in caplog.text


@pytest.mark.fault("E3")
def test_a_complex_of_the_test_set_that_does_not_fit_is_counted_and_the_others_are_scored(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run.train() == 0
    rows = (run.results / "test_predictions.csv").read_text().splitlines()
    code = rows[2].split(",")[0]
    capsys.readouterr()
    with_little_memory(monkeypatch, lambda model, batch: code in batch.codes)
    assert run.train() == 0
    assert (run.results / "test_predictions.csv").read_text().splitlines() == [rows[0], rows[1], rows[3]]
    assert f'"left_out": [\n    "{code}"\n  ]' in (run.results / "metrics.json").read_text()
    assert "test set, 2 complexes (1 left out: they do not fit into memory)" in capsys.readouterr().out


@pytest.mark.fault("E3")
def test_a_test_set_of_which_nothing_fits_is_no_success(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert run.train() == 0
    with_little_memory(monkeypatch, lambda model, batch: not model.training)
    assert run.train() == 1
    assert "no complex of the test set fits into memory" in caplog.text
    assert "Traceback" not in caplog.text


# Memory that is not given back


@pytest.mark.slow
@pytest.mark.fault("E6")
def test_five_hundred_steps_need_no_more_memory_than_the_first(tmp_path: Path) -> None:
    trainer = real_trainer(tmp_path, dropout=0.1, gradient_accumulation_steps=2)
    window = make_batches(0)[:2]
    poisonous = [window[0], poisoned(window[1], "pos", NAN)]

    def run_steps(count: int) -> int:
        for number in range(count):
            trainer._train_window(poisonous if number % 10 == 0 else window)
            trainer.progress.num_skipped = 0  # what counts here is memory
        return _resident_bytes()

    before = run_steps(100)
    after = run_steps(500)
    assert after < 1.05 * before, f"{before / 1e6:.0f} MB -> {after / 1e6:.0f} MB"


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
