"""The loop: batches -> optimizer steps, with mixed precision, accumulation, skips, validation and saves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from signal import Signals

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from src.checkpoint import INTERRUPTED, CheckpointError, restore_rng, rng_state
from src.evaluation.calibration import calibrate
from src.evaluation.metrics import metrics
from src.graph import Batch
from src.hardware.device import choose_precision
from src.hardware.inference import predict_batches
from src.hardware.out_of_memory import free_memory, memory_fault, num_edges
from src.optimization.gradients import WindowGradient
from src.optimization.optimizer import WeightAverage, make_optimizer, make_scheduler, reserve_moments
from src.optimization.progress import (
    Outlook,
    Progress,
    epoch_line,
    progress_bar,
    read_progress,
    step_profiler,
    tensorboard_writer,
)
from src.optimization.saving import Saver
from src.optimization.window import run_window
from src.settings import OutputSettings, TrainingSettings
from src.system.distributed import ALONE, AgreedSignals, World
from src.system.stop_signals import StopSignals
from src.system.terminal import listed

log = logging.getLogger(__name__)

SMALLEST_SCALE = 1.0  # least scale of the fp16 gradient scaler; below it gradients overflow whatever the scale


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the complexes and the usual causes."""


class Trainer:
    """A model with everything that training it needs: optimizer, schedule, gradient scale, weight average, progress."""

    def __init__(
        self,
        model: nn.Module,
        settings: TrainingSettings,
        output: OutputSettings,
        *,
        device: torch.device,
        num_batches: Sequence[int],
        facts: dict,
        world: World = ALONE,
    ):
        """
        Args:
            num_batches: batches in each epoch.
            facts: what every checkpoint carries besides the state of the training (settings, split, versions).
            world: the processes that train together.
        """
        self.world = world
        self.model = model.to(device)
        self.settings, self.output, self.device, self.facts = settings, output, device, facts
        self.num_batches = num_batches
        self.precision = choose_precision(settings.precision, device)
        self.progress = Progress()
        self.optimizer = make_optimizer(self.model, settings)
        num_steps = [math.ceil(number / settings.gradient_accumulation_steps) for number in num_batches]
        self.scheduler = make_scheduler(self.optimizer, settings, num_steps=num_steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.average = WeightAverage(self.model, settings.ema_decay)
        self.calibration: dict | None = None  # errors on the validation set after the epoch that ended last
        self.outlook = Outlook(num_batches)
        self.saver = Saver(output, self.state_dict, writes=self.world.is_main)

    @property
    def finished(self) -> bool:
        patience = self.settings.early_stopping_patience
        stopped_early = patience and self.progress.epochs_without_improvement >= patience
        return bool(stopped_early) or self.progress.epoch >= self.settings.epochs

    def state_dict(self) -> dict:
        """Everything a resumed run needs to end with the same weights as one that was never stopped."""
        return {
            **self.facts,
            "model": self.model.state_dict(),
            "ema": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": rng_state(),
            "progress": asdict(self.progress),
            "calibration": self.calibration,
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        elif self.scaler.is_enabled() or state["scaler"]:
            log.info("the checkpoint was written with another precision: the gradient scale starts anew")
        self.progress = read_progress(state["progress"])
        # That of a finished run's best model is of the network joined with a process, and not of what is trained on.
        self.calibration = None if state.get("process") else state.get("calibration")
        restore_rng(state["rng"])

    def fit(
        self, train_batches: Callable[[int, int], Iterable[Batch]], validation_batches: Iterable[Batch]
    ) -> Signals | None:
        """Train until the last epoch, an early stop or a signal.

        Args:
            train_batches: (epoch, first batch) -> the batches of that epoch from there on.
            validation_batches: the validation set; gone through once an epoch.

        Returns:
            The signal that stopped the run, or None when it is finished.

        Raises:
            TrainingError: when too many batches had to be skipped, or no epoch gave a best model.
            CheckpointError: when the disk does not take what must be saved.
        """
        self.saver.end_change()
        self.write_row = tensorboard_writer(self.output, self.progress.history, wanted=self.world.is_main)
        with StopSignals() as signals, self.saver.saves_a_crash(no_faults=(TrainingError, CheckpointError)):
            stop = self.world.agreed(signals)
            while not self.finished:
                self._train_epoch(train_batches(self.progress.epoch, self.progress.next_batch), stop)
                if stop.received:
                    self.saver.save(INTERRUPTED, stop)
                    return stop.received
                self._end_epoch(validation_batches, stop)
            self.saver.save_what_is_late(self.progress.history, stop)
        if self.progress.best_epoch < 0 and not stop.received:
            raise TrainingError(
                "no epoch had a validation RMSE that is a number, so there is no best model. Usual causes: a "
                "learning_rate that is too high, or no complex of the validation set fits into memory"
            )
        return stop.received

    def _train_epoch(self, batches: Iterable[Batch], stop: StopSignals | AgreedSignals) -> None:
        """Go through what is left of the epoch, or until a signal comes."""
        progress, steps = self.progress, self.settings.gradient_accumulation_steps
        num_batches, is_main = self.num_batches[progress.epoch], self.world.is_main
        with (
            closing(batch for batch in batches) as batches,  # so that an error, too, ends what makes them
            progress_bar(progress, num_batches, self.settings.epochs, shown=is_main) as bar,
            step_profiler(self.output, progress.step, wanted=is_main) as profiler,
        ):
            while not stop.received and (window := list(islice(batches, steps))):
                started = time.monotonic()
                self._train_window(window)
                progress.next_batch += len(window)
                seconds = time.monotonic() - started
                progress.seconds += seconds
                self.outlook.add(progress, len(window), seconds)
                self.saver.end_change()
                bar.update(len(window))
                bar.set_postfix_str(f"rmse {progress.train_rmse:.2f}", refresh=False)
                if profiler:
                    profiler.step()
                self.saver.save_when_due(len(window), progress.next_batch, num_batches, stop)

    def _train_window(self, window: list[Batch]) -> None:
        """One optimizer step on the mean loss over the complexes of the window that could be used."""
        self.model.train()
        progress = self.progress
        gradient = WindowGradient(
            self.model,
            self.scaler,
            device=self.device,
            precision=self.precision,
            edge_limit=progress.edge_limit,
            ranking_weight=self.settings.ranking_weight,
        )
        self.world.seed(self.settings.seed, progress.epoch, progress.next_batch)
        found = run_window(gradient, window, self.world)
        self.saver.begin_change()  # weights, schedule and counters change one after the other
        progress.edge_limit = found.edge_limit
        for complex_ in found.too_large:
            self._leave_out(complex_)
        for codes, what in found.not_finite:
            self._skip(codes, f"its {what} is NaN or infinite: {listed(codes)}")
        if not found.num_used and not found.not_finite:
            for codes in found.codes:
                self._skip((), f"none of its complexes fits into memory: {listed(codes)}")
        if found.overflowed:
            self._halve_scale([code for codes in found.codes for code in codes])
        elif found.num_used:
            self._step(gradient, found.num_used / found.total)
            progress.squared_error += found.judged_error
            progress.num_judged += found.num_judged
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self, gradient: WindowGradient, fraction: float) -> None:
        """Step with the gradient of the mean over what was used, a fraction of the window's complexes."""
        self.scaler.unscale_(self.optimizer)
        gradient.divide(fraction)
        # By the largest element first: the sum of the squares of elements above 1e19 is infinite in float32.
        for norm_type in (math.inf, 2.0):
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip_norm, norm_type)
        self._move_weights()
        self.scaler.update()
        self.progress.step += 1
        self.progress.skipped_in_a_row = 0
        if isinstance(self.scheduler, LambdaLR):
            self.scheduler.step()
        self.average.update(self.model, self.progress.step)

    def _move_weights(self) -> None:
        """Let the optimizer move the weights once, wholly or not at all.

        A step for which memory ran out is tried again, when memory was freed; but not one that had begun to write, as
        it would count the gradient twice.
        """
        for _ in range(2):
            fault = memory_fault(reserve_moments, self.optimizer)
            before = self._versions()
            fault = fault or memory_fault(self.scaler.step, self.optimizer)
            if fault is None:
                return
            if before != self._versions():
                break
            free_memory(self.device)
        raise TrainingError(
            f"no memory for the step of the optimizer ({fault}); the last checkpoint is whole. Free memory that "
            "other programs use and give the same command, or use device = 'cpu', or start a new run with a "
            "smaller visnet_hidden_channels"
        )

    def _versions(self) -> list[int]:
        """How often torch has seen something written into each weight, and into what the optimizer knows of it."""
        known = (value for values in self.optimizer.state.values() for value in values.values())
        return [tensor._version for tensor in (*self.model.parameters(), *known)]

    def _halve_scale(self, codes: Sequence[str]) -> None:
        self.scaler.update(self.scaler.get_scale() / 2)
        self.progress.num_overflows += 1
        log.info("fp16 gradient overflow, scale now %g: %s", self.scaler.get_scale(), listed(codes))
        if self.scaler.get_scale() < SMALLEST_SCALE:
            raise TrainingError(
                f"the fp16 gradient scale fell below {SMALLEST_SCALE:g}; last batch: {listed(codes)}. "
                "Use precision = 'bf16' or 'fp32', or a lower learning_rate"
            )

    def _leave_out(self, complex_: Batch) -> None:
        """Name and count a complex that does not fit into memory even alone; the rest of its batch is used."""
        (code,) = complex_.codes
        progress = self.progress
        progress.skipped_codes[code] = progress.skipped_codes.get(code, 0) + 1
        about = progress.epoch + 1, complex_.pos.shape[0], num_edges(complex_), code
        log.warning(
            "epoch %d: complex skipped, it alone (%d atoms, %d edges) does not fit into memory: %s. Use "
            "message_passing = 'lean' or device = 'cpu', or for a new run a smaller pocket_radius",
            *about,
        )

    def _skip(self, codes: Sequence[str], why: str) -> None:
        """Name and count a batch that was not used, and stop when too many were not."""
        progress, settings, num_batches = self.progress, self.settings, self.num_batches[self.progress.epoch]
        progress.add_skipped(codes)
        log.warning("epoch %d: batch skipped, %s", progress.epoch + 1, why)
        too_many = progress.num_skipped > max(1, settings.max_skipped_fraction * num_batches)
        if too_many or progress.skipped_in_a_row >= settings.max_skipped_in_a_row:
            raise TrainingError(
                f"{progress.num_skipped} of {num_batches} batches of epoch {progress.epoch + 1} skipped, "
                f"{progress.skipped_in_a_row} in a row; the last because {why}. Most often: "
                f"{listed(progress.skipped_most)}. Usual causes: a learning_rate that is too high, fp16 where bf16 or "
                "fp32 is needed, a damaged structure file, or a GPU whose memory is full"
            )

    def _end_epoch(self, validation_batches: Iterable[Batch], stop: StopSignals | AgreedSignals) -> None:
        """Validate, write the row of the epoch, and save."""
        progress = self.progress
        predicted, measured, left_out = self._validate(validation_batches)
        calibration = calibrate(predicted - measured)
        self.calibration = calibration and calibration.state_dict()
        scores = metrics(np.delete(predicted, left_out), np.delete(measured, left_out))
        self.saver.begin_change()
        row = progress.add_row(scores, self.optimizer.param_groups[0]["lr"], left_out=len(left_out))
        is_best = progress.judge(row["validation_rmse"])
        if not math.isfinite(row["validation_rmse"]):
            log.warning("epoch %d: the validation RMSE is not a number; it counts as no better", row["epoch"])
        if not isinstance(self.scheduler, LambdaLR):
            # A score that is not finite counts as one that is no better.
            self.scheduler.step(row["validation_rmse"] if math.isfinite(row["validation_rmse"]) else math.inf)
        log.info(epoch_line(row, self.settings.epochs, is_best=is_best))
        self.write_row(row)
        progress.start_epoch(progress.epoch + 1)
        self.saver.end_change()
        self.saver.save_epoch(progress.history, stop, is_best=is_best)

    def _validate(self, batches: Iterable[Batch]) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Predicted and measured pK of the validation set, and the places of what does not fit into memory."""
        left_out: list[int] = []
        with self.average.applied_to(self.model) as model:
            found = predict_batches(model, batches, self.device, self.precision, left_out=left_out)
        is_left_out = [place in left_out for place in range(len(found[0]))]
        rows = self.world.collected(list(zip(*found, is_left_out, strict=True)))
        predicted, measured = (np.array([row[column] for row in rows], dtype=np.float32) for column in (0, 1))
        return predicted, measured, [place for place, row in enumerate(rows) if row[2]]
