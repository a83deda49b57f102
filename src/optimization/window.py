"""A window of batches, of which every rank has a share -> the gradient of all, and what all ranks say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from src.graph import Batch
from src.optimization.gradients import WindowGradient
from src.system.distributed import World


@dataclass
class Window:
    """What was used of a window and what was not, the same on all ranks.

    Attributes:
        total: complexes, of which num_used could be used; num_judged of those have an exact label.
        judged_error: sum of the squared errors of those.
        not_finite: codes and what was NaN or infinite, the "loss" or the "gradient", of each batch that had such.
        codes: of each batch, known where not everything went well.
        too_large: complexes that do not fit into memory even alone.
        overflowed: the fp16 gradient scale was too high; there is no gradient.
    """

    total: int = 0
    num_used: int = 0
    num_judged: int = 0
    judged_error: float = 0.0
    not_finite: list[tuple[list[str], str]] = field(default_factory=list)
    codes: list[list[str]] = field(default_factory=list)
    too_large: list[Batch] = field(default_factory=list)
    overflowed: bool = False
    edge_limit: int | None = None


@dataclass(frozen=True)
class _Report:
    """What one rank has to say of its shares of the batches."""

    codes: list[tuple[str, ...]]
    faults: dict[int, tuple[list[str], str]]  # number of the batch -> codes that were left out, and what was not finite
    used: set[int]  # numbers of batches
    too_large: list[Batch]
    overflowed: bool
    edge_limit: int | None


def run_window(gradient: WindowGradient, window: Sequence[Batch], world: World) -> Window:
    """Leave in `.grad` the gradient, times the fp16 scale, of the sum of the losses used / complexes of the window.

    A batch of which another rank's share is not finite is dropped by all: the window is run once more without it.

    Args:
        window: this rank's share of each batch, which may have no complexes.
    """
    limit = gradient.edge_limit
    dropped: dict[int, tuple[list[str], str]] = {}
    while True:
        kept = [batch for number, batch in enumerate(window) if number not in dropped]
        compared = world.of_others(partial(gradient.scores, kept)) if gradient.ranking_weight else []
        gradient.accumulate(kept, compared)
        report = _report(gradient, window)
        tells = report.faults or report.too_large or report.overflowed or gradient.edge_limit != limit or dropped
        numbers = [gradient.num_used, gradient.num_judged, gradient.judged_error, bool(tells)]
        total = sum(batch.num_graphs for batch in kept)
        summed, is_finite = world.average(list(gradient.model.parameters()), total, numbers)
        found = Window(*map(int, summed[:3]), summed[3], edge_limit=limit)
        if is_finite and not summed[4]:
            return found
        reports = world.gather(report)
        found.codes = [[*chain(*shares)] for shares in zip(*(one.codes for one in reports), strict=True)]
        found.too_large = [*chain(*(one.too_large for one in reports))]
        found.overflowed = any(one.overflowed for one in reports)
        found.edge_limit = min((one.edge_limit for one in reports if one.edge_limit is not None), default=None)
        faults = _joined(reports)
        if not is_finite:  # a sum of gradients that were finite
            faults |= {number: (found.codes[number], "gradient") for one in reports for number in one.used}
            found.num_used = found.num_judged = 0
        elif any(one.used & faults.keys() - one.faults.keys() for one in reports):
            dropped |= {number: (found.codes[number], what) for number, (_, what) in faults.items()}
            gradient.begin_again()
            continue
        found.not_finite = [fault for _, fault in sorted((dropped | faults).items())]
        return found


def _report(gradient: WindowGradient, window: Sequence[Batch]) -> _Report:
    def is_part(part: Batch, batch: Batch) -> bool:
        return set(part.codes) <= set(batch.codes)

    faults = {}
    for number, batch in enumerate(window):
        found = [(part.codes, what) for part, what in gradient.not_finite if is_part(part, batch)]
        if found:  # a batch that was run in parts counts once
            faults[number] = [code for codes, _ in found for code in codes], found[-1][1]
    return _Report(
        codes=[batch.codes for batch in window],
        faults=faults,
        used={number for number, batch in enumerate(window) if any(is_part(part, batch) for part in gradient.losses)},
        too_large=gradient.too_large,
        overflowed=gradient.overflowed,
        edge_limit=gradient.edge_limit,
    )


def _joined(reports: Sequence[_Report]) -> dict[int, tuple[list[str], str]]:
    """Number of each batch with a fault -> codes that were left out for it on any rank, and what was not finite."""
    joined: dict[int, tuple[list[str], str]] = {}
    for report in reports:
        for number, (codes, what) in report.faults.items():
            joined[number] = [*joined.get(number, ([], ""))[0], *codes], what
    return joined
