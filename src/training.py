"""The loop: batches -> optimizer steps, with mixed precision, accumulation, skips, validation and saves."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from signal import Signals

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from src.checkpoint import CheckpointError, restore_rng, rng_state, save_checkpoint
from src.evaluation import metrics
from src.graph import Batch
from src.inference import autocast, choose_precision, predict_batches
from src.optimization import WeightAverage, make_optimizer, make_scheduler
from src.progress import Progress, epoch_line, write_history
from src.settings import OutputSettings, TrainingSettings
from src.stop_signals import StopSignals

log = logging.getLogger(__name__)

MAX_FAILED_SAVES = 3  # in a row
SMALLEST_SCALE = 1.0  # of the fp16 gradient scaler; below it gradients overflow whatever the scale


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the complexes and the usual causes."""


def squared_errors(predicted: Tensor, batch: Batch) -> Tensor:
    """Squared error of each complex, [G]; a prediction on the right side of a censored label has none."""
    error = predicted.float() - batch.pk
    error = torch.where(batch.bound > 0, error.clamp(max=0.0), error)
    error = torch.where(batch.bound < 0, error.clamp(min=0.0), error)
    return error.square()


class Trainer:
    """A model with everything that training it needs: optimizer, schedule, gradient scale, weight average, progress."""

    def __init__(
        self,
        model: nn.Module,
        settings: TrainingSettings,
        output: OutputSettings,
        *,
        device: torch.device,
        num_batches: int,
        facts: dict,
    ):
        """
        Args:
            num_batches: batches in an epoch.
            facts: what every checkpoint carries besides the state of the training (settings, split, versions).
        """
        self.model = model.to(device)
        self.settings, self.output, self.device, self.facts = settings, output, device, facts
        self.num_batches = num_batches
        self.precision = choose_precision(settings.precision, device)
        self.progress = Progress()
        self.optimizer = make_optimizer(self.model, settings)
        steps_per_epoch = math.ceil(num_batches / settings.gradient_accumulation_steps)
        self.scheduler = make_scheduler(self.optimizer, settings, steps_per_epoch=steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.average = WeightAverage(self.model, settings.ema_decay)
        self._failed_saves = 0

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
        self.progress = Progress(**state["progress"])
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
            TrainingError: when too many batches had to be skipped.
        """
        with StopSignals() as stop:
            while not self.finished:
                self._train_epoch(train_batches(self.progress.epoch, self.progress.next_batch), stop)
                if stop.received:
                    self.save("INTERRUPTED.pth.tar", stop)
                    return stop.received
                self._end_epoch(validation_batches, stop)
            if self._failed_saves:
                self.save("checkpoint.pth.tar", stop)
        return stop.received

    def save(self, name: str, stop: StopSignals) -> Path:
        path = Path(self.output.checkpoint_dir) / name
        with stop.protected():
            save_checkpoint(path, self.state_dict(), keep_previous=name == "checkpoint.pth.tar")
        return path

    def _try_to_save(self, name: str, stop: StopSignals) -> None:
        """Save; a disk that is full for a while does not end the run, and what was saved before is still there."""
        try:
            self.save(name, stop)
            self._failed_saves = 0
        except CheckpointError as error:
            self._failed_saves += 1
            if self._failed_saves >= MAX_FAILED_SAVES:
                raise
            log.error("%s; training goes on (failure %d of %d)", error, self._failed_saves, MAX_FAILED_SAVES)

    def _train_epoch(self, batches: Iterable[Batch], stop: StopSignals) -> None:
        """Go through what is left of the epoch, or until a signal comes."""
        progress, steps = self.progress, self.settings.gradient_accumulation_steps
        batches = iter(batches)
        with (
            _progress_bar(progress, self.num_batches, self.settings.epochs) as bar,
            self._profiler() as profiler,
        ):
            while not stop.received and (window := list(islice(batches, steps))):
                started = time.monotonic()
                self._train_window(window)
                progress.next_batch += len(window)
                progress.seconds += time.monotonic() - started
                bar.update(len(window))
                bar.set_postfix_str(f"rmse {progress.train_rmse:.2f}", refresh=False)
                if profiler:
                    profiler.step()
                self._save_when_due(len(window), stop)

    def _train_window(self, window: list[Batch]) -> None:
        """One optimizer step on the mean loss over the complexes of the window that could be used."""
        self.model.train()
        total = sum(batch.num_graphs for batch in window)
        losses = {batch: loss for batch in window if (loss := self._backward(batch, total)) is not None}
        if losses and not self._gradient_is_finite():
            losses = self._backward_one_by_one(list(losses), total)
        if losses:
            num_used = sum(batch.num_graphs for batch in losses)
            self._step(num_used / total)
            self.progress.squared_error += sum(losses.values())
            self.progress.num_used += num_used
        self.optimizer.zero_grad(set_to_none=True)

    def _backward(self, batch: Batch, total: int, *, full_precision: bool = False) -> float | None:
        """Add the gradient of sum(loss) / total and return that sum; None for a batch that is skipped untouched.

        With full_precision neither autocast nor the fp16 gradient scale is used.
        """
        on_device = batch.to(self.device)
        with autocast(self.device, torch.float32 if full_precision else self.precision):
            predicted = self.model(on_device)
        loss = squared_errors(predicted, on_device).sum()
        value = loss.item()
        if not math.isfinite(value):
            self._skip(batch, "loss")
            return None
        loss = loss / total
        (loss if full_precision else self.scaler.scale(loss)).backward()
        return value

    def _backward_one_by_one(self, batches: list[Batch], total: int) -> dict[Batch, float]:
        """Each batch again, alone: keep the gradients that are finite, and name the batches whose are not.

        In fp16 the batches are run in full precision. When all are finite there, the gradient scale was too high:
        it is halved and the window left out, which is normal now and then.
        """
        is_fp16 = self.scaler.is_enabled()
        losses: dict[Batch, float] = {}
        gradients: dict[nn.Parameter, Tensor] = {}
        for batch in batches:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self._backward(batch, total, full_precision=is_fp16)
            if loss is None:
                continue
            if not self._gradient_is_finite():
                self._skip(batch, "gradient")
                continue
            losses[batch] = loss
            for parameter in self._with_gradient():
                gradients[parameter] = gradients.get(parameter, 0) + parameter.grad
        if is_fp16 and len(losses) == len(batches):
            self._halve_scale(batches)
            return {}
        for parameter, gradient in gradients.items():
            parameter.grad = gradient * self.scaler.get_scale()
        return losses

    def _step(self, used_fraction: float) -> None:
        """Step with the gradient of the mean over what was used."""
        self.scaler.unscale_(self.optimizer)
        for parameter in self._with_gradient():
            parameter.grad /= used_fraction
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.progress.step += 1
        self.progress.skipped_in_a_row = 0
        if isinstance(self.scheduler, LambdaLR):
            self.scheduler.step()
        self.average.update(self.model, self.progress.step)

    def _halve_scale(self, batches: list[Batch]) -> None:
        self.scaler.update(self.scaler.get_scale() / 2)
        self.progress.num_overflows += 1
        codes = [code for batch in batches for code in batch.codes]
        log.info("fp16 gradient overflow, scale now %g: %s", self.scaler.get_scale(), _names(codes))
        if self.scaler.get_scale() < SMALLEST_SCALE:
            raise TrainingError(
                f"the fp16 gradient scale fell below {SMALLEST_SCALE:g}; last batch: {_names(codes)}. "
                "Use precision = 'bf16' or 'fp32', or a lower learning_rate"
            )

    def _skip(self, batch: Batch, what: str) -> None:
        progress, settings = self.progress, self.settings
        progress.add_skipped(batch.codes)
        log.warning(
            "epoch %d: batch skipped, its %s is NaN or infinite: %s",
            progress.epoch + 1,
            what,
            _names(batch.codes),
        )
        too_many = progress.num_skipped > max(1, settings.max_skipped_fraction * self.num_batches)
        if too_many or progress.skipped_in_a_row >= settings.max_skipped_in_a_row:
            worst = sorted(progress.skipped_codes, key=lambda code: (-progress.skipped_codes[code], code))
            raise TrainingError(
                f"{progress.num_skipped} of {self.num_batches} batches of epoch {progress.epoch + 1} skipped, "
                f"{progress.skipped_in_a_row} in a row, because of NaN or infinity in the {what}. Most often: "
                f"{_names(worst)}. Usual causes: a learning_rate that is too high, fp16 where bf16 or fp32 is "
                "needed, or a damaged structure file"
            )

    def _end_epoch(self, validation_batches: Iterable[Batch], stop: StopSignals) -> None:
        """Validate, write the row of the epoch, and save."""
        progress = self.progress
        with self.average.applied_to(self.model) as model:
            predicted, measured = predict_batches(model, validation_batches, self.device, self.precision)
        row = progress.add_row(metrics(predicted, measured), self.optimizer.param_groups[0]["lr"])
        is_best = progress.judge(row["validation_rmse"])
        if not isinstance(self.scheduler, LambdaLR):
            # A score that is not finite counts as one that is no better.
            self.scheduler.step(row["validation_rmse"] if math.isfinite(row["validation_rmse"]) else math.inf)
        log.info(epoch_line(row, self.settings.epochs, is_best=is_best))
        progress.start_epoch(progress.epoch + 1)
        write_history(Path(self.output.results_dir), progress.history)
        # The best model first: should the run die between the two files, it is the newest whole state.
        if is_best:
            self._try_to_save("model_best.pth.tar", stop)
        self._try_to_save("checkpoint.pth.tar", stop)

    def _save_when_due(self, num_done: int, stop: StopSignals) -> None:
        flag, every = Path(self.output.manual_save_trigger_file), self.output.checkpoint_every_batches
        done = self.progress.next_batch
        asked = flag.exists()
        due = every and done // every > (done - num_done) // every and done < self.num_batches
        if asked or due:
            self._try_to_save("checkpoint.pth.tar", stop)
        if asked:
            flag.unlink(missing_ok=True)
            log.info("%s found: saved to %s", flag.name, self.output.checkpoint_dir)

    def _with_gradient(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.grad is not None]

    def _gradient_is_finite(self) -> bool:
        # The largest element, not the sum of squares, which overflows for gradients that clipping can still use.
        gradients = [parameter.grad for parameter in self._with_gradient()]
        return not gradients or bool(torch.isfinite(nn.utils.get_total_norm(gradients, norm_type=math.inf)))

    def _profiler(self) -> contextlib.AbstractContextManager:
        if not self.output.profile or self.progress.step:
            return contextlib.nullcontext()
        path = Path(self.output.results_dir) / "profile.txt"

        def write(profiler: torch.profiler.profile) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))
            log.info("where the time of five steps went: %s", path)

        schedule = torch.profiler.schedule(wait=1, warmup=1, active=5, repeat=1)
        return torch.profiler.profile(schedule=schedule, on_trace_ready=write)


def _progress_bar(progress: Progress, num_batches: int, epochs: int) -> tqdm:
    return tqdm(
        total=num_batches,
        initial=progress.next_batch,
        desc=f"epoch {progress.epoch + 1}/{epochs}",
        unit="batch",
        leave=False,
        disable=None,
    )


def _names(codes: Iterable[str], most: int = 16) -> str:
    codes = list(codes)
    return " ".join(codes[:most]) + (f" and {len(codes) - most} more" if len(codes) > most else "")
