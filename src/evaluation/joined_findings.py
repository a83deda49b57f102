"""Findings of runs of one data set, members and folds -> those of all of them together.

A complex is predicted by the mean of the runs that held it out. Its interval is the mean of theirs, wider where they
disagree (src/evaluation/calibration.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from src.evaluation.calibration import member_spread, widened
from src.evaluation.findings import Findings, Judged, JudgedPart, LeakageRow, Run, Split, compute_findings
from src.pdbbind.index import Skipped


def join_findings(found: Sequence[Findings], run: Run) -> Findings:
    """
    Args:
        found: at least one; their parts to judge may be the same, overlap or not.
        run: what to say of all of them.
    """
    codes = tuple(sorted({code for one in found for code in one.judged.codes}))
    place_of = {code: place for place, code in enumerate(codes)}
    places = [np.array([place_of[code] for code in one.judged.codes]) for one in found]

    def mean(columns: Sequence[np.ndarray]) -> np.ndarray:
        return np.nanmean(_rows(columns, places, len(codes)), axis=0)

    judged = _judged(found, codes, places)
    names = [name for name in found[0].baselines if all(name in one.baselines for one in found)]
    baselines = {name: mean([one.baselines[name] for one in found]) for name in names}
    parts = [name for name in found[0].judged.parts if all(name in one.judged.parts for one in found)]
    judged = replace(judged, parts={name: mean([one.judged.parts[name] for one in found]) for name in parts})
    if all(one.judged.likeness is not None for one in found):
        judged = replace(judged, likeness=mean([one.judged.likeness for one in found]))
    return compute_findings(judged, baselines, _part(found), run)


def _judged(found: Sequence[Findings], codes: tuple[str, ...], places: Sequence[np.ndarray]) -> Judged:
    first: dict[str, tuple[Judged, int]] = {}
    for one in found:
        for place, code in enumerate(one.judged.codes):
            first.setdefault(code, (one.judged, place))
    of = [first[code] for code in codes]
    predicted = _rows([one.judged.predicted for one in found], places, len(codes))
    widths, spread = None, member_spread(predicted)
    if all(one.judged.half_widths is not None for one in found):
        table = _rows([one.judged.half_widths for one in found], places, len(codes))
        widths = widened(np.nanmean(table, axis=0), spread)
    return Judged(
        codes=codes,
        measured=np.array([one.measured[place] for one, place in of]),
        predicted=np.nanmean(predicted, axis=0),
        heavy_atoms=np.array([one.heavy_atoms[place] for one, place in of]),
        kinds=tuple(one.kinds[place] for one, place in of),
        smiles=tuple(one.smiles[place] for one, place in of),
        sources=tuple(one.sources[place] for one, place in of) if found[0].judged.sources else (),
        targets=tuple(one.targets[place] for one, place in of) if all(one.judged.targets for one in found) else (),
        spread=spread if (np.isfinite(predicted).sum(axis=0) > 1).any() else None,
        clusters=tuple(one.clusters[place] for one, place in of) if found[0].judged.clusters else None,
        half_widths=widths,
    )


def _rows(columns: Sequence[np.ndarray], places: Sequence[np.ndarray], count: int) -> np.ndarray:
    """[runs, count], NaN where a run did not hold the complex out."""
    table = np.full((len(columns), count), np.nan)
    for row, column, of_run in zip(table, columns, places, strict=True):
        row[of_run] = column
    return table


def _part(found: Sequence[Findings]) -> JudgedPart:
    """What was held out by any run; leakage is added up over unlike test sets, since a complex leaks in its fold."""
    splits = {tuple(one.part.split.codes["test"]): one.part.split for one in found}
    codes = {name: sorted({code for one in found for code in one.part.split.codes[name]}) for name in _NAMES}
    counts: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for split in splits.values():
        for row in split.leakage:
            counts[row.label] += row.count
            totals[row.label] += row.total
    leakage = [LeakageRow(label, counts[label], totals[label]) for label in counts]
    skipped: dict[str, Skipped] = {row.code: row for one in found for row in one.part.skipped}
    left_out = sorted({code for one in found for code in one.part.left_out})
    return JudgedPart(
        found[0].part.name, Split(found[0].part.split.method, codes, leakage), tuple(skipped.values()), left_out
    )


_NAMES = ("train", "validation", "test")
