"""Batches that a thread makes while others work: the same ones, and no thread is left behind."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.checkpoint import newest_checkpoint
from src.data.batching import make_loader
from src.data.dataset import Example
from src.data.prefetching import made_ahead
from src.graph import Batch
from src.hardware.inference import predict_batches
from tests.synthetic import random_batch, random_complex
from tests.training_runs import VALIDATION, assert_same, fingerprint, make_trainer, train_batches

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LONG_S = 60.0


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("made-ahead")]


class Loader:
    """Six batches; what has been asked for so far, in which thread, and which threads were there at its start."""

    def __init__(self, wrong: int | None = None):
        self.wrong, self.made, self.makers = wrong, [], set()
        self.num_made = threading.Semaphore(0)

    def __iter__(self) -> Iterator[Batch]:
        self.there = threads()
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        for number in range(6):
            if number == self.wrong:
                raise ZeroDivisionError("as planned")
            self.made.append(number)
            self.makers.add(threading.current_thread().name)
            self.num_made.release()
            yield random_batch(1, seed=number, num_ligand_atoms=2, num_pocket_atoms=2)


def test_the_batches_are_the_same_and_one_thread_makes_and_pins_them(pinned: list) -> None:
    alone, ahead = Loader(), Loader()
    expected, found = list(made_ahead(alone, CPU)), list(made_ahead(ahead, CUDA, 2))
    for one, other in zip(found, expected, strict=True):
        assert_same(vars(one), vars(other))
    assert ahead.makers == {"made-ahead_0"}
    assert pinned == [("made-ahead_0", 1)] * 6
    assert not threads()


def test_on_a_cpu_there_is_no_thread_and_nothing_is_made_before_it_is_asked_for() -> None:
    loader = Loader()
    batches = made_ahead(loader, CPU, 2)
    next(batches)
    assert (loader.made, loader.makers) == ([0], {threading.current_thread().name})


@pytest.mark.parametrize("num_ahead", [1, 3])
def test_so_many_are_made_while_one_is_in_use_and_no_more(pinned: list, num_ahead: int) -> None:
    loader = Loader()
    batches = made_ahead(loader, CUDA, num_ahead)
    next(batches)
    assert all(loader.num_made.acquire(timeout=LONG_S) for _ in range(1 + num_ahead))
    batches.close()
    assert loader.made == list(range(1 + num_ahead))
    assert not threads()


def test_worker_processes_begin_before_the_thread(pinned: list) -> None:
    loader = Loader()
    next(made_ahead(loader, CUDA))
    assert loader.there == []
    examples = [Example(random_complex(seed, 2, 2), 6.0) for seed in range(4)]
    found = list(made_ahead(make_loader(examples, [[2], [0, 3], [1]], num_workers=1), CUDA))
    assert [batch.codes for batch in found] == [("syn2",), ("syn0", "syn3"), ("syn1",)]


def test_an_error_in_the_thread_is_raised_where_its_batch_is_asked_for(pinned: list) -> None:
    batches = made_ahead(Loader(wrong=2), CUDA, 3)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(ZeroDivisionError, match="as planned") as error:
        next(batches)
    assert "_batches" in [frame.name for frame in traceback.extract_tb(error.value.__traceback__)]
    assert not threads()


class Wrong(nn.Module):
    def forward(self, batch: Batch) -> Tensor:
        raise ArithmeticError(batch.codes)


def test_a_prediction_that_fails_leaves_no_thread(pinned: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batch, "to", lambda self, _device: self)
    with pytest.raises(ArithmeticError) as error:
        predict_batches(Wrong(), Loader(), CUDA)
    assert error.value.__traceback__ is not None, "it keeps the frames alive"
    assert pinned
    assert not threads()


def by_thread(epoch: int, first_batch: int) -> Iterator[Batch]:
    return made_ahead(train_batches(epoch, first_batch), CUDA, 2)


def test_a_training_that_fails_leaves_no_thread(tmp_path: Path, pinned: list) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.spoil = lambda batch, _: Wrong()(batch)
    with pytest.raises(ArithmeticError) as error:
        trainer.fit(by_thread, VALIDATION)
    assert error.value.__traceback__ is not None, "it keeps the frames alive"
    assert pinned
    assert not threads()


@pytest.mark.fault("C1")
@pytest.mark.skipif(os.name != "posix", reason="POSIX")
def test_a_run_stopped_by_a_signal_that_the_thread_got_goes_on_with_the_same_bits(tmp_path: Path, pinned: list) -> None:
    whole = make_trainer(tmp_path / "whole")
    whole.fit(train_batches, VALIDATION)

    def signalled(epoch: int, first_batch: int) -> Iterator[Batch]:
        for number, batch in enumerate(train_batches(epoch, first_batch)):
            if (epoch, number) == (1, 2):
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            yield batch

    stopped = make_trainer(tmp_path / "stopped")
    assert stopped.fit(lambda *place: made_ahead(signalled(*place), CUDA, 2), VALIDATION) == signal.SIGTERM
    assert stopped.progress.epoch == 1
    assert not threads()
    resumed = make_trainer(tmp_path / "stopped")
    resumed.load_state_dict(newest_checkpoint(tmp_path / "stopped/checkpoints")[1])
    resumed.fit(by_thread, VALIDATION)
    assert_same(fingerprint(resumed), fingerprint(whole))
    assert not threads()
