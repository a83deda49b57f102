"""The batches of an accumulation window -> the gradient of their mean loss, without what is not finite or does not fit.

The squared error of a window is the mean over its complexes, however they are cut into batches. So a batch that does
not fit into memory can be run in parts with the same gradient.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from src.graph import Batch
from src.hardware.device import autocast
from src.hardware.out_of_memory import free_memory, memory_fault, num_edges, parts_within, safe_limit, smaller_parts
from src.optimization.losses import ranking_losses, squared_errors
from src.system.terminal import listed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """What a pairwise loss must know of complexes: their predictions and labels, [n] each."""

    codes: tuple[str, ...]
    predicted: Tensor
    pk: Tensor
    bound: Tensor
    weight: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Scores]) -> Scores:
        columns = zip(*(part._tensors for part in parts), strict=True)
        return cls(tuple(code for part in parts for code in part.codes), *map(torch.cat, columns))

    def without(self, codes: Sequence[str]) -> Scores:
        kept = [place for place, code in enumerate(self.codes) if code not in codes]
        return Scores(tuple(self.codes[place] for place in kept), *(column[kept] for column in self._tensors))

    def to(self, device: torch.device) -> Scores:
        return Scores(self.codes, *(column.to(device) for column in self._tensors))

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.predicted, self.pk, self.bound, self.weight


class WindowGradient:
    """Runs the batches of one window forward and backward, and knows afterwards what was used and what was not.

    Attributes:
        ranking_weight: of the ranking loss beside the squared errors. Pairs are those within a batch, so with it the
            gradient depends on how a window is cut; where other ranks have shares, those of the whole batch.
        losses: each part that was used -> the sum of its losses.
        not_finite: each part that was left out, with what was NaN or infinite: the "loss" or the "gradient".
        too_large: complexes that were left out because they do not fit into memory even alone.
        overflowed: the fp16 gradient scale was too high; there is no gradient.
        edge_limit: the most edges that a batch may have before it is cut, None while every batch fitted.
    """

    def __init__(
        self,
        model: nn.Module,
        scaler: torch.amp.GradScaler,
        *,
        device: torch.device,
        precision: torch.dtype,
        edge_limit: int | None = None,
        ranking_weight: float = 0.0,
    ):
        self.model, self.scaler, self.device, self.precision = model, scaler, device, precision
        self.edge_limit, self.ranking_weight = edge_limit, ranking_weight
        self.losses: dict[Batch, float] = {}
        self.not_finite: list[tuple[Batch, str]] = []
        self.too_large: list[Batch] = []
        self.overflowed = False
        self._total = 0
        self._whole: dict[str, Scores] = {}  # code -> scores of its batch, of all ranks
        self._judged: dict[Batch, float] = {}
        self._running: Batch | None = None
        self._in_full_precision = False

    @property
    def num_used(self) -> int:
        """Complexes."""
        return sum(batch.num_graphs for batch in self.losses)

    @property
    def num_judged(self) -> int:
        """Complexes that were used and whose label is exact: no bounds, no decoys."""
        return sum(int((batch.bound == 0).sum()) for batch in self.losses)

    @property
    def judged_error(self) -> float:
        """Sum of the squared errors of those."""
        return sum(self._judged[batch] for batch in self.losses)

    def scores(self, window: Sequence[Batch]) -> list[Scores]:
        """The scores of each batch of a window as its gradient will see them, random numbers included."""
        with torch.no_grad(), torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            return [self._scores(batch) for batch in window]

    def accumulate(self, window: Sequence[Batch], of_ranks: Sequence[Sequence[Scores]] = ()) -> None:
        """Leave in `.grad` the gradient, times the fp16 scale, of the sum of the losses used / complexes of the window.

        When memory runs out the gradient is worth nothing, because a backward that was cut off has added to some
        parameters and not to others. The whole window is run again, in smaller parts.

        Args:
            of_ranks: the `scores` of all ranks, which the ranking loss compares.
        """
        joined = [Scores.joined(of_batch) for of_batch in zip(*of_ranks, strict=True)]
        self._whole = {code: scores for scores in joined for code in scores.codes}
        self._total = sum(batch.num_graphs for batch in window)
        parts = [part for batch in window if batch.num_graphs for part in parts_within(batch, self.edge_limit)]
        while fault := memory_fault(self._run, parts):
            self._clear()
            free_memory(self.device)
            parts = self._smaller(parts, fault)

    def begin_again(self) -> None:
        """Forget the window, for it to be run once more."""
        self._clear()
        self.too_large, self.overflowed = [], False

    def divide(self, fraction: float) -> None:
        if fraction != 1 and (gradients := [parameter.grad for parameter in self._with_gradient()]):
            torch._foreach_div_(gradients, fraction)

    def _run(self, parts: Sequence[Batch]) -> None:
        """One pass through the window; if memory runs out, `_running` is the part that did not fit.

        The device is waited for once, at the end. After a loss that is not finite the pass is made again without it.
        """
        if not parts:
            return
        losses, is_finite = self._read(parts, [self._backward(part) for part in parts])
        if rest := [part for part in parts if part in losses]:
            if len(rest) < len(parts):
                self.model.zero_grad(set_to_none=True)
                return self._run(rest)
            self.losses = losses
            if not is_finite:
                self._one_by_one(parts)

    def _clear(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.losses, self.not_finite = {}, []

    def _backward(self, batch: Batch, *, full_precision: bool = False) -> Tensor:
        """Add the gradient of sum(loss) / total; [2] that sum and that of the squared errors of exact labels.

        With full_precision neither autocast nor the fp16 gradient scale is used.
        """
        self._running, self._in_full_precision = batch, full_precision
        on_device = batch.to(self.device)
        with autocast(self.device, torch.float32 if full_precision else self.precision):
            predicted = self.model(on_device)
        errors = squared_errors(predicted, on_device)
        loss = (errors * on_device.weight).sum()
        if self.ranking_weight:
            loss = loss + self.ranking_weight * self._ranking_loss(predicted, on_device)
        judged = torch.where(on_device.bound == 0, errors, 0.0).sum()
        sums = torch.stack([loss, judged]).detach()
        loss = loss / self._total
        (loss if full_precision else self.scaler.scale(loss)).backward()
        return sums

    def _read(self, batches: Sequence[Batch], sums: Sequence[Tensor]) -> tuple[dict[Batch, float], bool]:
        """The losses that are finite, and whether the gradient is; the others join `not_finite`. One wait for all."""
        # The largest element, not the sum of squares, which overflows for gradients that clipping can still use.
        gradients = [parameter.grad for parameter in self._with_gradient()]
        largest = [nn.utils.get_total_norm(gradients, norm_type=math.inf).view(1)] if gradients else []
        numbers = torch.cat([*sums, *largest]).tolist()
        losses = dict(zip(batches, numbers[0::2], strict=False))
        self._judged |= zip(batches, numbers[1::2], strict=False)
        self.not_finite += [(batch, "loss") for batch, loss in losses.items() if not math.isfinite(loss)]
        finite = {batch: loss for batch, loss in losses.items() if math.isfinite(loss)}
        return finite, not largest or math.isfinite(numbers[-1])

    def _scores(self, batch: Batch) -> Scores:
        found: list[Tensor] = []

        def predict(parts: Sequence[Batch]) -> None:
            found.clear()
            for part in parts:
                on_device = part.to(self.device)
                with autocast(self.device, self.precision):
                    found.append(self.model(on_device).cpu())

        parts = parts_within(batch, self.edge_limit) if batch.num_graphs else []
        if memory_fault(predict, parts):
            free_memory(self.device)
            predict(parts_within(batch, 0))
        return Scores(batch.codes, torch.cat([batch.pk[:0], *found]), batch.pk, batch.bound, batch.weight)

    def _ranking_loss(self, predicted: Tensor, batch: Batch) -> Tensor:
        """The sum over the batch and over all that other ranks have of it, whose predictions stay as they are."""
        whole = self._whole.get(batch.codes[0])
        if whole is None:
            return ranking_losses(predicted, batch).sum()
        others = whole.without(batch.codes).to(predicted.device)
        names = ("pk", "bound", "weight")
        joined = {name: torch.cat([getattr(batch, name), getattr(others, name)]) for name in names}
        together = replace(batch, **joined)
        return ranking_losses(torch.cat([predicted, others.predicted.to(predicted.dtype)]), together).sum()

    def _one_by_one(self, batches: Sequence[Batch]) -> None:
        """Each batch again, alone: keep the gradients that are finite, and name the batches whose are not.

        In fp16 the batches are run in full precision. When all are finite there, the gradient scale was too high:
        the window is left out, which is normal now and then.
        """
        is_fp16 = self.scaler.is_enabled()
        self.losses = {}
        gradients: dict[nn.Parameter, Tensor] = {}
        for batch in batches:
            self.model.zero_grad(set_to_none=True)
            losses, is_finite = self._read([batch], [self._backward(batch, full_precision=is_fp16)])
            if not is_finite and losses:
                self.not_finite.append((batch, "gradient"))
            if not is_finite or not losses:
                continue
            self.losses |= losses
            for parameter in self._with_gradient():
                gradients[parameter] = gradients.get(parameter, 0) + parameter.grad
        if is_fp16 and len(self.losses) == len(batches):
            self.overflowed = True
            return
        self.model.zero_grad(set_to_none=True)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient * self.scaler.get_scale()

    def _smaller(self, parts: Sequence[Batch], fault: str) -> list[Batch]:
        """The parts to try next: the one that did not fit in halves, or left out, and all within the new limit."""
        failed, limit = self._running, safe_limit(self._running, self.edge_limit)
        # What does not fit in full precision, which fp16 needs now and then, says nothing about every other window.
        if limit != self.edge_limit and not self._in_full_precision:
            self.edge_limit = limit
            about = fault, failed.pos.shape[0], num_edges(failed), listed(failed.codes), limit, limit
            log.warning(
                "the memory is full (%s) at a batch of %d atoms and %d edges: %s. From now on batches of more than %d "
                "edges are run in parts, with the same gradient but more slowly. For a new run set "
                "max_edges_per_batch = %d, or a lower batch_size with more gradient_accumulation_steps; "
                "message_passing = 'lean' needs the least memory",
                *about,
            )
        if failed.num_graphs == 1:
            self.too_large.append(failed)
        return smaller_parts(parts, failed, limit)

    def _with_gradient(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.grad is not None]
