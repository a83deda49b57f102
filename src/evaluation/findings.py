"""Predictions of a test set and what is known of it -> everything that metrics.json, the report and the card say."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from src.evaluation.calibration import Coverage, coverage
from src.evaluation.metrics import (
    Difference,
    Group,
    Interval,
    compare,
    metrics_by_group,
    metrics_with_intervals,
    partial_pearson,
    rmse,
)
from src.pdbbind.index import Skipped
from src.system.errors import UserError

OURS = "this model"
ROUNDING = 1e-4  # pK; tables are written with four decimals, and what differs by less is the same prediction
PREDICTION_COLUMNS = ("predicted_pK", "pK")  # names in the tables of main.py and predict.py
CODE_COLUMNS = ("code", "ligand")
LIKENESS_BORDERS = (0.1, 0.3, 0.6)
RANDOM_LEAKS = "similar complexes stand on both sides of a random split, so new targets will do worse"


class ComparisonError(UserError):
    """A table of predictions that cannot be compared with; says what was found and what would be right."""


@dataclass(frozen=True)
class LeakageRow:
    """How many test complexes `label`, such as 'have a training complex with sequence identity > 0.9'."""

    label: str
    count: int
    total: int

    def __str__(self) -> str:
        return f"{self.count} of {self.total} {self.label}"


@dataclass(frozen=True, eq=False)
class Judged:
    """The complexes of the test set, n of them, in one order."""

    codes: tuple[str, ...]
    measured: np.ndarray  # [n] pK
    predicted: np.ndarray  # [n] pK
    heavy_atoms: np.ndarray  # [n] of the ligand
    kinds: tuple[str, ...]  # 'Kd', 'Ki', 'IC50', or 'pK' where the source does not say
    smiles: tuple[str, ...]  # empty where RDKit could not write one
    sources: tuple[str, ...] = ()  # where each comes from; empty where no table says it
    targets: tuple[str, ...] = ()  # the protein of each; empty where proteins are not known
    spread: np.ndarray | None = None  # [n] pK, standard deviation over the members of an ensemble
    clusters: tuple[object, ...] | None = None  # group of the split that each is of; None where it knows none
    likeness: np.ndarray | None = None  # [n] to the nearest training complex, ligand and pocket together, 0 to 1
    half_widths: np.ndarray | None = None  # [n] pK, of their intervals; None where the complexes judged shaped them
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)  # part of a joined model, such as 'network' -> [n] pK

    def __post_init__(self) -> None:
        columns = (self.measured, self.predicted, self.heavy_atoms, self.kinds, self.smiles)
        assert {len(column) for column in columns} == {len(self.codes)}
        assert {len(self.targets), len(self.sources)} <= {0, len(self.codes)}
        assert self.clusters is None or len(self.clusters) == len(self.codes)

    @property
    def resampled(self) -> str:
        """What the bootstrap draws, for texts."""
        if self.clusters is None:
            return "complexes"
        count = len(set(self.clusters))
        return f"{count} whole clusters" if count > 1 else "whole clusters; one cluster has no interval"


@dataclass(frozen=True)
class Run:
    """Where the predictions come from."""

    checkpoint: str
    settings: Mapping[str, object]  # CONFIG of the run
    versions: Mapping[str, str]
    history: Sequence[Mapping[str, float]] = ()  # rows of history.csv
    num_weights: int = 0
    joined_with: str = ""  # second part of a joined model, in words; '' for a network alone
    synthetic: bool = False
    command: str = "python main.py --evaluate"  # writes the same page again


@dataclass(frozen=True)
class Split:
    """How training and test were kept apart."""

    method: str  # 'random', 'cluster', 'time', 'scaffold' or 'file'
    codes: Mapping[str, Sequence[str]]  # part -> PDB codes
    leakage: Sequence[LeakageRow] = ()


@dataclass(frozen=True)
class JudgedPart:
    """The part of a split that is judged, and what is missing from it."""

    name: str  # 'test' or 'validation'
    split: Split
    skipped: Sequence[Skipped] = ()  # complexes that were not used in any part, or not by CASF
    left_out: Sequence[str] = ()  # codes of the part that did not fit into memory


@dataclass(frozen=True)
class Comparison:
    """This model against the predictions in another table, on the complexes that both have."""

    source: str
    count: int
    num_left_out: int  # complexes of the test set that the other table lacks
    metrics: dict[str, Difference]


@dataclass(frozen=True)
class Findings:
    """Everything that is known after an evaluation; the writers below it do no arithmetic on it."""

    judged: Judged
    part: JudgedPart
    run: Run
    table: dict[str, dict[str, Interval]]  # predictor -> metric; OURS is the first
    given_size: Interval  # Pearson's R given the number of heavy atoms
    by_kind: list[Group]
    by_target: list[Group]
    by_source: list[Group]
    by_likeness: list[Group]
    against_baseline: Comparison | None = None  # comparison with the best baseline; None without baselines
    comparison: Comparison | None = None  # another table of predictions
    powers: dict[str, dict[str, Interval]] = field(default_factory=dict)  # power of CASF -> metric
    baselines: Mapping[str, np.ndarray] = field(default_factory=dict)  # name -> [n] pK
    coverage: Coverage | None = None  # None without an interval, or on the complexes that shaped it

    @property
    def ours(self) -> dict[str, Interval]:
        return self.table[OURS]


def compute_findings(
    judged: Judged,
    baselines: Mapping[str, np.ndarray],
    part: JudgedPart,
    run: Run,
    *,
    other: tuple[str, Mapping[str, float]] | None = None,
    powers: Mapping[str, dict[str, Interval]] | None = None,
) -> Findings:
    """
    Args:
        baselines: name -> pK of each complex, [n].
        other: name of another table of predictions, and its code -> pK; the codes in lower case.
        powers: of CASF, where its decoys were scored.
    """
    parts = {f"its {name} alone": predicted for name, predicted in judged.parts.items()}
    predictors = {OURS: judged.predicted, **parts, **baselines}
    groups, clusters = judged.targets, judged.clusters
    table = {
        name: metrics_with_intervals(values, judged.measured, clusters=clusters) for name, values in predictors.items()
    }
    both = judged.predicted, judged.measured
    return Findings(
        judged=judged,
        part=part,
        run=run,
        table=table,
        given_size=partial_pearson(*both, judged.heavy_atoms, clusters=clusters),
        by_kind=metrics_by_group(*both, judged.kinds, clusters=clusters),
        by_target=metrics_by_group(*both, groups, clusters=clusters) if groups else [],
        by_source=metrics_by_group(*both, judged.sources, clusters=clusters) if judged.sources else [],
        by_likeness=_by_likeness(judged),
        against_baseline=_against_best(judged, baselines),
        comparison=_comparison(judged, *other) if other else None,
        powers=dict(powers or {}),
        baselines=baselines,
        coverage=None if judged.half_widths is None else coverage(*both, judged.half_widths, clusters),
    )


def metrics_json(findings: Findings) -> dict[str, object]:
    """What metrics.json holds: plain values, None where a metric is not defined."""
    groups = {"by kind": findings.by_kind, "by target": findings.by_target, "by source": findings.by_source}
    groups["by likeness"] = findings.by_likeness
    others = {"against the best baseline": findings.against_baseline, "compared with": findings.comparison}
    return _plain(
        {
            "part": findings.part.name,
            "complexes": len(findings.judged.codes),
            "left_out": findings.part.left_out,
            "resampled": findings.judged.resampled,
            **findings.table,
            "pearson given ligand size": findings.given_size,
            "interval": findings.coverage,
            **{title: {g.name: {"complexes": g.count, **g.metrics} for g in found} for title, found in groups.items()},
            "casf": findings.powers,
            **{title: other and _facts(other) for title, other in others.items()},
        }
    )


def _by_likeness(judged: Judged) -> list[Group]:
    """Of the least alike first; empty where likeness is not known."""
    if judged.likeness is None:
        return []
    places = np.digitize(judged.likeness, LIKENESS_BORDERS)
    ends = [0.0, *LIKENESS_BORDERS, 1.0]
    names = [f"{low:g} to {high:g}" for low, high in pairwise(ends)]
    both = judged.predicted, judged.measured
    found = metrics_by_group(*both, [names[place] for place in places], clusters=judged.clusters)
    return sorted(found, key=lambda group: group.name)


def require_common(codes: Sequence[str], source: str, other: Mapping[str, float]) -> None:
    """
    Args:
        codes: to be judged; any case.
        other: predictions of another table by code in lower case.

    Raises:
        ComparisonError: the table has none of the codes.
    """
    if codes and not any(code.lower() in other for code in codes):
        ours, theirs = (", ".join(sorted(side)[:3]) or "none" for side in (codes, other))
        raise ComparisonError(
            f"{source}: has none of the complexes to judge. Its codes with a prediction are {theirs} ({len(other):,}), "
            f"those to judge {ours} ({len(codes):,})"
        )


def coverage_text(coverage: Coverage) -> str:
    """What the report and the model card say of the interval."""
    text = (
        f"The interval of ±{coverage.half_width:.2f} pK on average that comes with a prediction should hold "
        f"{coverage.level:.0%} of the measured values; it holds {coverage.share:.0%} of these {coverage.count:,} (95% "
        f"interval {coverage.low:.0%} to {coverage.high:.0%})."
    )
    thirds = "RMSE of the third with the narrowest intervals {:.2f}, with the widest {:.2f}.".format(*coverage.thirds)
    return text if math.isnan(coverage.by_width) else f"{text} {thirds}"


def split_json(split: Split) -> dict[str, object]:
    """What splits.json holds."""
    return {
        "method": split.method,
        "leakage": [{"label": row.label, "count": row.count, "total": row.total} for row in split.leakage],
        "parts": {part: list(codes) for part, codes in split.codes.items()},
    }


def predictions_table(findings: Findings) -> tuple[list[str], list[list[object]]]:
    """Header and rows of test_predictions.csv; pK to four decimals."""

    def four_decimals(values: np.ndarray) -> list[float]:
        return [round(float(value), 4) for value in values]

    judged = findings.judged
    columns: dict[str, Sequence[object]] = {
        "code": judged.codes,
        "measured_pK": four_decimals(judged.measured),
        "predicted_pK": four_decimals(judged.predicted),
        "kind": judged.kinds,
        "heavy_atoms": [int(count) for count in judged.heavy_atoms],
    }
    columns |= {name: tell for name, tell in (("target", judged.targets), ("source", judged.sources)) if tell}
    for name, predicted in judged.parts.items():
        columns[f"predicted_pK_{name.replace(' ', '_')}"] = four_decimals(predicted)
    if judged.half_widths is not None:
        columns["pK_low"] = four_decimals(judged.predicted - judged.half_widths)
        columns["pK_high"] = four_decimals(judged.predicted + judged.half_widths)
    if judged.spread is not None:
        columns["spread_pK"] = four_decimals(judged.spread)
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def read_predictions(path: Path) -> dict[str, float]:
    """Code in lower case -> predicted pK, from a table that main.py or predict.py wrote; rows without one are left out.

    Raises:
        ComparisonError: the file cannot be read, has no column of codes or of predictions, or has a code twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ComparisonError(f"{path}: cannot be read: {error}") from error
    columns = list(rows[0]) if rows else []
    code, pk = (next((name for name in names if name in columns), None) for names in (CODE_COLUMNS, PREDICTION_COLUMNS))
    if code is None or pk is None:
        raise ComparisonError(
            f"{path}: has the columns {', '.join(map(str, columns)) or 'of an empty file'}; a column of "
            f"{' or '.join(CODE_COLUMNS)} and one of {' or '.join(PREDICTION_COLUMNS)} are needed"
        )
    # A code that begins with a sign has a quote before it, for spreadsheets.
    found = [((row[code] or "").lstrip("'").lower(), _number(row[pk], path)) for row in rows]
    found = [(name, value) for name, value in found if math.isfinite(value)]
    repeated = [name for name, count in Counter(name for name, _ in found).items() if count > 1]
    if repeated:
        raise ComparisonError(
            f"{path}: {len(repeated)} codes have more than one prediction, such as {repeated[0]!r}; one each is needed"
        )
    return dict(found)


def _comparison(judged: Judged, source: str, other: Mapping[str, float]) -> Comparison:
    require_common(judged.codes, source, other)
    places = [place for place, code in enumerate(judged.codes) if code.lower() in other]
    theirs = np.array([other[judged.codes[place].lower()] for place in places])
    ours = judged.predicted[places]
    theirs = np.where(np.abs(theirs - ours) < ROUNDING, ours, theirs)
    clusters = None if judged.clusters is None else [judged.clusters[place] for place in places]
    table = compare(ours, theirs, judged.measured[places], clusters=clusters)
    return Comparison(source, len(places), len(judged.codes) - len(places), table)


def _against_best(judged: Judged, baselines: Mapping[str, np.ndarray]) -> Comparison | None:
    """Against the baseline with the lowest RMSE."""
    if not baselines or not judged.codes:
        return None
    name = min(baselines, key=lambda name: rmse(baselines[name], judged.measured))
    table = compare(judged.predicted, baselines[name], judged.measured, clusters=judged.clusters)
    return Comparison(name, len(judged.codes), 0, table)


def _facts(comparison: Comparison) -> dict[str, object]:
    counts = {"complexes": comparison.count, "left_out": comparison.num_left_out}
    return {"source": comparison.source, **counts, **comparison.metrics}


def _plain(value: Any) -> Any:
    """Dictionaries, lists and numbers; None for NaN, which JSON has not."""
    value = asdict(value) if is_dataclass(value) else value
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(text: str | None, path: Path) -> float:
    if not (text or "").strip():
        return math.nan  # the pose of this row was not scored
    try:
        return float(text)
    except ValueError as error:
        raise ComparisonError(f"{path}: {text!r} is not a number") from error
