"""The gradient of an accumulation window: exact in parts, and untouched by what does not fit into memory."""

from __future__ import annotations

import logging
import math
import signal
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from src.checkpoint import newest_checkpoint
from src.graph import Batch
from src.hardware.out_of_memory import free_memory, num_edges, parts_within
from src.model import build_model
from src.optimization.gradients import WindowGradient
from src.optimization.losses import ranking_losses, squared_errors
from src.training import Trainer, TrainingError
from tests.synthetic import batch_of, random_batch, random_complex, tiny_settings
from tests.training_runs import (
    VALIDATION,
    assert_same,
    fingerprint,
    make_batches,
    make_trainer,
    signal_once,
    train_batches,
)

WINDOW = make_batches(0)  # 2, 2, 2, 2 and 1 complexes
LARGEST_COMPLEX = max(num_edges(part) for batch in WINDOW for part in parts_within(batch, 0))
FAULTS = {
    "torch": lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "python": lambda: _raise(MemoryError()),
    "cpu allocator": lambda: torch.empty(10**15),
}


def _raise(error: Exception) -> None:
    raise error


class FailsInBackward(torch.autograd.Function):
    """The identity; memory runs out on the way back, when layers nearer to the loss have their gradient already."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, fault: Callable[[], None]) -> Tensor:
        ctx.fault = fault
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        ctx.fault()
        return grad, None


class Memory:
    """A memory that is full for some batches, and what it has seen: codes of each pass, and of each that failed."""

    def __init__(
        self, trainer: Trainer, is_full: Callable[[Batch], bool], *, where: str = "forward", fault: str = "torch"
    ) -> None:
        self.seen: list[tuple[str, ...]] = []
        self.failed: list[tuple[str, ...]] = []
        self.is_full, self.raise_fault = is_full, FAULTS[fault]
        self.running: Batch | None = None
        trainer.model.dropout = 0.0
        trainer.model.register_forward_pre_hook(lambda _, arguments: self._start(arguments[0]))
        if where == "forward":
            trainer.model.hidden.register_forward_hook(lambda *_: self._allocate())
        else:
            trainer.model.hidden.register_forward_hook(lambda _, __, out: FailsInBackward.apply(out, self._allocate))

    def _start(self, batch: Batch) -> None:
        self.running = batch
        self.seen.append(batch.codes)

    def _allocate(self) -> None:
        if self.is_full(self.running):
            self.failed.append(self.running.codes)
            self.raise_fault()


def weights_are_close(one: Trainer, other: Trainer) -> None:
    for left, right in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def trained_on(folder: Path, window: list[Batch], **changes: object) -> Trainer:
    """A trainer that made one step without any fault."""
    trainer = make_trainer(folder, **changes)
    trainer.model.dropout = 0.0
    trainer._train_window(window)
    return trainer


def test_accumulated_steps_equal_one_large_batch(tmp_path: Path) -> None:
    accumulated, direct = make_trainer(tmp_path), make_trainer(tmp_path)
    accumulated.model.eval()
    gradient = WindowGradient(
        accumulated.model, accumulated.scaler, device=torch.device("cpu"), precision=torch.float32
    )
    gradient.accumulate(WINDOW)
    assert gradient.num_used == 9
    direct.model.eval()
    torch.cat([squared_errors(direct.model(batch), batch) for batch in WINDOW]).mean().backward()
    for one, other in zip(accumulated.model.parameters(), direct.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_ranking_loss_joins_the_squared_errors(tmp_path: Path, weight: float) -> None:
    one, direct = make_trainer(tmp_path), make_trainer(tmp_path)
    one.model.eval()
    direct.model.eval()
    counts = torch.tensor([1.0, 0.2, 1.0, 0.5])
    batch = replace(random_batch(4, seed=0), pk=torch.tensor([4.0, 9.0, 6.0, 7.0]), weight=counts)
    gradient = WindowGradient(
        one.model, one.scaler, device=torch.device("cpu"), precision=torch.float32, ranking_weight=weight
    )
    gradient.accumulate([batch])
    predicted = direct.model(batch)
    errors = squared_errors(predicted, batch)
    (counts * errors + weight * ranking_losses(predicted, batch)).mean().backward()
    for ours, theirs in zip(one.model.parameters(), direct.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert gradient.judged_error == pytest.approx(errors.sum().item(), rel=1e-5)  # what is shown is the RMSE alone


def test_the_weight_of_the_ranking_loss_is_a_setting(tmp_path: Path) -> None:
    window = [replace(random_batch(4, seed=0), pk=torch.tensor([4.0, 9.0, 6.0, 7.0]))]
    plain, ranked = (trained_on(tmp_path, window, ranking_weight=weight) for weight in (0.0, 5.0))
    pairs = zip(plain.model.parameters(), ranked.model.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.fault("E1", "E2")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("position", range(4))
def test_a_batch_that_does_not_fit_is_run_in_parts_with_the_same_gradient(
    tmp_path: Path, position: int, where: str, fault: str
) -> None:
    bad = WINDOW[position].codes
    trainer = make_trainer(tmp_path)
    memory = Memory(trainer, lambda batch: batch.codes == bad, where=where, fault=fault)
    trainer._train_window(WINDOW)
    assert memory.failed == [bad]
    weights_are_close(trainer, trained_on(tmp_path, WINDOW))
    assert trainer.progress.num_judged == 9
    assert trainer.progress.step == 1
    assert trainer.progress.skipped_codes == {}


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_window_in_which_only_single_complexes_fit(tmp_path: Path, where: str) -> None:
    window = [random_batch(7, seed=1, num_ligand_atoms=3, num_pocket_atoms=6), *WINDOW]
    trainer = make_trainer(tmp_path)
    memory = Memory(trainer, lambda batch: batch.num_graphs > 1, where=where)
    trainer._train_window(window)
    weights_are_close(trainer, trained_on(tmp_path, window))
    assert len(memory.failed) <= 4
    assert [len(codes) for codes in memory.seen[-16:]] == [1] * 16


@pytest.mark.fault("E3")
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("number", [0, 3, 6])
def test_a_complex_that_never_fits_is_named_and_the_others_are_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int, where: str
) -> None:
    code = [code for batch in WINDOW for code in batch.codes][number]
    trainer = make_trainer(tmp_path)
    Memory(trainer, lambda batch: code in batch.codes, where=where)
    trainer._train_window(WINDOW)
    alone = [batch for batch in WINDOW if code not in batch.codes]
    rest = next(batch for batch in WINDOW if code in batch.codes)
    kept = trained_on(tmp_path, [*alone, _without(rest, code)])
    weights_are_close(trainer, kept)
    assert trainer.progress.skipped_codes == {code: 1}
    assert trainer.progress.num_skipped == 0  # its batch was used
    assert trainer.progress.num_judged == 8
    (line,) = [record.getMessage() for record in caplog.records if "complex skipped" in record.getMessage()]
    assert code in line
    assert "9 atoms" in line


def _without(batch: Batch, code: str) -> Batch:
    """The other complex of a batch of two, made as `random_batch` makes it and not by the code under test."""
    number = 1 - batch.codes.index(code)
    graph = random_complex(1000 * WINDOW.index(batch) + number, num_ligand_atoms=3, num_pocket_atoms=6)
    return replace(batch_of([graph], batch.pk[number : number + 1]), codes=(batch.codes[number],))


@pytest.mark.fault("E3")
def test_a_run_in_which_nothing_fits_stops_and_says_why(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    Memory(trainer, lambda batch: True)
    with pytest.raises(TrainingError, match=r"3 of 5 batches.*none of its complexes fits into memory: e0b2c0, e0b2c1"):
        trainer.fit(train_batches, VALIDATION)
    assert trainer.progress.step == 0
    assert newest_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.fault("E5")
def test_the_failed_pass_is_gone_before_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path)
    memory = Memory(trainer, lambda batch: batch.num_graphs > 1, where="backward")
    freed: list[bool] = []

    def free(device: torch.device) -> None:
        freed.append(all(parameter.grad is None for parameter in trainer.model.parameters()))
        free_memory(device)

    monkeypatch.setattr("src.optimization.gradients.free_memory", free)
    outputs: list[weakref.ref] = []
    alive: list[int] = []

    def watch(_: torch.nn.Module, __: tuple, out: Tensor) -> None:
        alive.append(sum(output() is not None for output in outputs))
        outputs.append(weakref.ref(out))

    trainer.model.last.register_forward_hook(watch)
    trainer._train_window(WINDOW[:2])
    assert alive == [0] * len(memory.seen)
    assert freed == [True] * len(memory.failed)


def test_the_size_that_failed_is_not_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = make_trainer(tmp_path)
    memory = Memory(trainer, lambda batch: num_edges(batch) > LARGEST_COMPLEX)
    with caplog.at_level(logging.WARNING):
        trainer._train_window(WINDOW)
        failed = list(memory.failed)
        for _ in range(3):
            trainer._train_window(WINDOW)
    assert memory.failed == failed == [WINDOW[0].codes]
    assert trainer.progress.edge_limit == int(0.8 * num_edges(WINDOW[0]))
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"max_edges_per_batch = {trainer.progress.edge_limit}" in line
    assert "e0b0c0, e0b0c1" in line


def test_batches_within_the_limit_stay_whole(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.progress.edge_limit = max(num_edges(batch) for batch in WINDOW)
    memory = Memory(trainer, lambda batch: False)
    trainer._train_window(WINDOW)
    assert memory.seen == [batch.codes for batch in WINDOW]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_that_ran_out_of_memory_and_was_stopped_ends_with_the_same_bits(
    tmp_path: Path, accumulation: int
) -> None:
    def trainer_in(folder: Path) -> tuple[Trainer, Memory]:
        trainer = make_trainer(folder, gradient_accumulation_steps=accumulation)
        memory = Memory(trainer, lambda batch: batch.num_graphs > 1 and trainer.progress.step in (1, 2))
        trainer.model.dropout = 0.2
        return trainer, memory

    whole, _ = trainer_in(tmp_path / "whole")
    assert whole.fit(train_batches, VALIDATION) is None
    assert whole.progress.edge_limit is not None
    for step in (1, 2, 3, 6):
        stopped, _ = trainer_in(tmp_path / f"stopped-{step}")
        stopped.model.spoil = signal_once(lambda trainer=stopped, step=step: trainer.progress.step == step - 1)
        assert stopped.fit(train_batches, VALIDATION) == signal.SIGINT
        resumed, memory = trainer_in(tmp_path / f"stopped-{step}")
        resumed.load_state_dict(newest_checkpoint(tmp_path / f"stopped-{step}/checkpoints")[1])
        assert resumed.progress.edge_limit == stopped.progress.edge_limit
        resumed.fit(train_batches, VALIDATION)
        assert_same(fingerprint(resumed), fingerprint(whole))
        assert step < 3 or not memory.failed


@pytest.mark.fault("E2")
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_gradient_scale_of_fp16_stays(tmp_path: Path, where: str) -> None:
    def with_scale(folder: Path) -> Trainer:
        trainer = make_trainer(folder, precision="fp16")
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        trainer.model.dropout = 0.0
        return trainer

    trainer, clean = with_scale(tmp_path), with_scale(tmp_path)
    memory = Memory(trainer, lambda batch: batch.num_graphs > 1, where=where)
    trainer._train_window(WINDOW)
    clean._train_window(WINDOW)
    assert memory.failed
    assert trainer.scaler.get_scale() == 16.0
    assert (trainer.progress.step, trainer.progress.num_overflows) == (1, 0)
    for one, other in zip(trainer.model.parameters(), clean.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-2)


def test_memory_that_runs_out_while_a_poisoned_batch_is_looked_for(tmp_path: Path) -> None:
    bad, late = WINDOW[1].codes, WINDOW[3].codes
    passes: list[tuple[str, ...]] = []

    def spoil(batch: Batch, predicted: Tensor) -> Tensor:
        if set(batch.codes) & set(bad):
            predicted.register_hook(lambda gradient: gradient * math.nan)
        return predicted * 1.0

    def is_full(batch: Batch) -> bool:
        passes.append(batch.codes)
        return batch.codes == late and passes.count(late) == 2  # not in the window's pass, but when run alone

    trainer = make_trainer(tmp_path)
    trainer.model.spoil = spoil
    memory = Memory(trainer, is_full)
    trainer._train_window(WINDOW)
    assert memory.failed == [late]
    assert trainer.progress.skipped_codes == dict.fromkeys(bad, 1)
    weights_are_close(trainer, trained_on(tmp_path, [batch for batch in WINDOW if batch.codes != bad]))


def test_full_precision_that_does_not_fit_lowers_no_limit(tmp_path: Path) -> None:
    """After an overflow a window of fp16 is run in full precision, which takes twice the memory, and then no more."""

    def spoil(batch: Batch, predicted: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            predicted.register_hook(lambda gradient: gradient * math.inf)
        return predicted * 1.0

    trainer = make_trainer(tmp_path, precision="fp16")
    trainer.model.spoil = spoil
    memory = Memory(trainer, lambda batch: batch.num_graphs > 1 and not torch.is_autocast_enabled("cpu"))
    scale = trainer.scaler.get_scale()
    trainer._train_window(WINDOW)
    assert memory.failed
    assert trainer.progress.edge_limit is None
    assert trainer.progress.skipped_codes == {}
    assert trainer.scaler.get_scale() == scale / 2


def test_the_error_that_is_shown_is_that_of_exact_labels(tmp_path: Path) -> None:
    batch = random_batch(4, seed=0)
    labels = batch.pk.clone()
    labels[:2] += 1.0
    mixed = replace(batch, pk=labels, bound=torch.tensor([0.0, 0.0, -1.0, 1.0]))
    exact = replace(random_batch(2, seed=5), pk=torch.tensor([3.0, 4.0]))
    model = build_model(tiny_settings())
    gradient = WindowGradient(
        model, torch.amp.GradScaler("cpu", enabled=False), device=torch.device("cpu"), precision=torch.float32
    )
    gradient.accumulate([mixed, exact])
    with torch.no_grad():
        errors = [(model(one) - one.pk).square() for one in (mixed, exact)]
    assert gradient.num_used == 6
    assert gradient.num_judged == 4
    assert gradient.judged_error == pytest.approx((errors[0][:2].sum() + errors[1].sum()).item(), rel=1e-5)


def test_a_gradient_of_the_whole_window_is_not_touched_and_that_of_a_part_is_divided(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    gradient = WindowGradient(trainer.model, trainer.scaler, device=torch.device("cpu"), precision=torch.float32)
    gradient.accumulate(WINDOW)
    before = [parameter.grad.clone() for parameter in trainer.model.parameters()]
    versions = [parameter.grad._version for parameter in trainer.model.parameters()]
    gradient.divide(9 / 9)
    assert [parameter.grad._version for parameter in trainer.model.parameters()] == versions
    gradient.divide(7 / 9)
    for parameter, whole in zip(trainer.model.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, whole / (7 / 9))
