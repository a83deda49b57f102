"""Findings -> one HTML page that holds all its figures and needs neither a network nor a script."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from src.evaluation import figures
from src.evaluation.findings import OURS, RANDOM_LEAKS, Comparison, Findings, coverage_text
from src.evaluation.metrics import Group, Interval
from src.evaluation.web_page import details, document, escaped, section, table, tiles, warnings

log = logging.getLogger(__name__)

METRIC_TITLES = {
    "rmse": "RMSE (pK)",
    "mae": "MAE (pK)",
    "pearson": "Pearson R",
    "spearman": "Spearman ρ",
    "kendall": "Kendall τ",
    "concordance": "C-index",
}
NUM_WORST = 12
NO_FIGURES = "No figures: matplotlib is not installed (pip install matplotlib), then the same command draws them."


def report_page(findings: Findings) -> str:
    """The page as text. Every name that comes from a file is escaped."""
    drawn = _draw(findings)
    sections = [
        _summary(findings),
        section("Beside simple baselines", drawn.get("intervals", ""), *_predictors(findings)),
        section("What the split says", _split(findings)),
        section("Predicted against measured", drawn.get("parity", "")),
        section("Errors by ligand size and kind of affinity", drawn.get("residuals", ""), _groups(findings)),
        section("Against other predictions", _comparison(findings.comparison)) if findings.comparison else "",
        section("CASF powers", *_powers(findings.powers)) if findings.powers else "",
        section("Training", drawn.get("learning", "") or "<p>No history of the training lies beside the results.</p>"),
        section("The largest errors", _worst(findings)),
        section("Complexes that are not used", _skipped(findings)),
        section("How to get this page again", _provenance(findings)),
    ]
    missing = warnings([] if figures.can_draw() else [NO_FIGURES])
    return document(f"Evaluation: {escaped(findings.part.name)} set", missing + "".join(sections))


def _draw(findings: Findings) -> dict[str, str]:
    if not figures.can_draw():
        log.warning("%s", NO_FIGURES)
        return {}
    judged = findings.judged
    drawn = {"intervals": figures.intervals(findings.table)}
    if judged.codes:
        drawn["parity"] = figures.parity(judged.predicted, judged.measured, judged.codes)
        drawn["residuals"] = figures.residuals(judged.predicted, judged.measured, judged.heavy_atoms, judged.kinds)
    if findings.run.history:
        drawn["learning"] = figures.learning_curves(findings.run.history)
    return {name: f"<figure>{svg}</figure>" for name, svg in drawn.items()}


def _summary(findings: Findings) -> str:
    ours, run, count = findings.ours, findings.run, len(findings.judged.codes)
    cells = [_tile(METRIC_TITLES[name], value) for name, value in ours.items()]
    cells.append(_tile("R given size", findings.given_size))
    lines = []
    against = findings.against_baseline
    if against is not None:
        change = against.metrics["rmse"]
        word = "lower" if change.value < 0 else "higher"
        surely = change.high < 0 or change.low > 0
        lines.append(
            f"<p>RMSE is {abs(change.value):.2f} pK {word} than that of the best baseline, {escaped(against.source)} "
            f"(difference {_interval(change)}, p = {_p(change.p)})"
            f"{'' if surely else '; <strong>this difference may be chance</strong>'}.</p>"
        )
    if findings.coverage:
        lines.append(f"<p>{escaped(coverage_text(findings.coverage))}</p>")
    part, remarks = findings.part, []
    if run.synthetic:
        remarks.append("Synthetic complexes: these numbers say nothing about real binding.")
    if part.split.method == "random":
        remarks.append(f"Random split: {RANDOM_LEAKS}.")
    if part.left_out:
        remarks.append(f"{len(part.left_out)} do not fit into memory: {', '.join(part.left_out)}")
    weights = f", {run.num_weights:,} weights" if run.num_weights else ""
    weights += f", joined with {run.joined_with}" if run.joined_with else ""
    return (
        f"<header><h1>How good the predictions are</h1><p class='lead'>{count:,} complexes of the {part.name} set, "
        f"{escaped(part.split.method)} split; {escaped(run.checkpoint)}{weights}.</p></header>"
        f"{tiles(cells)}{''.join(lines)}{warnings(remarks)}"
        "<p class='note'>pK is −log10 of Kd, Ki or IC50 in mol/L; one unit is a factor of ten.</p>"
    )


def _predictors(findings: Findings) -> tuple[str, str]:
    rows = findings.table
    header = ["", *METRIC_TITLES.values()]
    cells = [[escaped(name), *(_interval(row[metric]) for metric in METRIC_TITLES)] for name, row in rows.items()]
    note = (
        f"<p class='note'>Brackets hold 95% intervals from 1,000 resamples of {findings.judged.resampled}. None of the "
        "baselines knows what touches what; a model that is no better than they are has learned no binding. Rows of "
        "parts of the model are no baselines.</p>"
    )
    return table(header, cells, marked=list(rows).index(OURS) if OURS in rows else None), note


def _groups(findings: Findings) -> str:
    parts = [_group_table("Kind of affinity", findings.by_kind)]
    for title, groups in (
        ("Likeness to the nearest training complex, ligand and pocket together", findings.by_likeness),
        ("Protein", findings.by_target),
        ("Source", findings.by_source),
    ):
        if groups:
            parts.append(_group_table(title, groups))
    parts.append(
        "<p class='note'>Error is predicted minus measured, so points above the line are predicted too strong. "
        f"Pearson's R after the effect of ligand size is taken out of both: {_interval(findings.given_size)}.</p>"
    )
    return "".join(parts)


def _group_table(title: str, groups: Sequence[Group]) -> str:
    header = [title, "complexes", *METRIC_TITLES.values()]
    rows = [[escaped(g.name), f"{g.count:,}", *(_interval(g.metrics[name]) for name in METRIC_TITLES)] for g in groups]
    return table(header, rows)


def _split(findings: Findings) -> str:
    split = findings.part.split
    sizes = [[escaped(part), f"{len(codes):,}"] for part, codes in split.codes.items()]
    text = table([f"{escaped(split.method)} split", "complexes"], sizes)
    if split.leakage:
        rows = [[escaped(r.label), f"{r.count:,} of {r.total:,}", _share(r.count, r.total)] for r in split.leakage]
        text += table([f"Complexes of the {findings.part.name} set that", "count", "share"], rows)
        text += "<p class='note'>The higher these shares, the more of the score can be memory.</p>"
    return text


def _comparison(comparison: Comparison) -> str:
    rows = [[METRIC_TITLES[name], _interval(d), _p(d.p)] for name, d in comparison.metrics.items()]
    left_out = f"; {comparison.num_left_out:,} are not in that table" if comparison.num_left_out else ""
    return (
        f"<p>This model minus {escaped(comparison.source)}, on {comparison.count:,} complexes{left_out}.</p>"
        + table(["", "difference", "p"], rows)
        + "<p class='note'>Paired bootstrap: both are judged on the same resampled complexes.</p>"
    )


def _powers(powers: Mapping[str, Mapping[str, Interval]]) -> Iterable[str]:
    for title, row in powers.items():
        yield table([escaped(title), "value"], [[escaped(name), _interval(value)] for name, value in row.items()])


def _worst(findings: Findings) -> str:
    judged = findings.judged
    error = judged.predicted - judged.measured
    cards = []
    for place in np.argsort(-np.abs(error), kind="stable")[:NUM_WORST]:
        drawing = figures.molecule_drawing(judged.smiles[place]) or "<p class='note'>no drawing</p>"
        target = f", protein {escaped(judged.targets[place])}" if judged.targets else ""
        cards.append(
            f"<div class='card'>{drawing}<h3>{escaped(judged.codes[place])}</h3>"
            f"<p>measured {judged.measured[place]:.2f} ({escaped(judged.kinds[place])}), "
            f"predicted {judged.predicted[place]:.2f}<br><strong>{_number(error[place], '+')} pK</strong>, "
            f"{int(judged.heavy_atoms[place])} heavy atoms{target}</p></div>"
        )
    return f"<div class='cards'>{''.join(cards)}</div>"


def _skipped(findings: Findings) -> str:
    rows = findings.part.skipped
    if not rows:
        return "<p>Every complex of the index is used.</p>"
    reasons = Counter((row.stage, row.reason) for row in rows).most_common(15)
    note = "<p class='note'>skipped.csv names each of them.</p>"
    return note + table(["stage", "reason", "complexes"], [[escaped(s), escaped(r), f"{n:,}"] for (s, r), n in reasons])


def _provenance(findings: Findings) -> str:
    run = findings.run
    settings = [[f"<code>{escaped(key)}</code>", escaped(repr(value))] for key, value in run.settings.items()]
    versions = [[escaped(name), escaped(version)] for name, version in run.versions.items()]
    return (
        f"<p><code>{escaped(run.command)}</code></p>"
        + details("Settings of the run", table(["key", "value"], settings))
        + details("Versions", table(["", "version"], versions))
    )


def _tile(title: str, value: Interval) -> tuple[str, str, str]:
    return (title, "n/a", "") if math.isnan(value.value) else (title, _number(value.value), _bounds(value))


def _interval(value: Interval) -> str:
    return "n/a" if math.isnan(value.value) else f"{_number(value.value)} <small>{_bounds(value)}</small>"


def _bounds(value: Interval) -> str:
    return "" if math.isnan(value.low) else f"[{_number(value.low)}, {_number(value.high)}]"


def _number(value: float, sign: str = "-") -> str:
    return f"{round(value, 2) + 0.0:{sign}.2f}".replace("-", "−")  # no minus zero, and a minus as wide as a plus


def _p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.3f}"


def _share(count: int, total: int) -> str:
    if not total:
        return "n/a"
    percent = f"{100 * count / total:.1f}"
    return f"<span class='bar'><i style='width:{percent}%'></i></span> {percent}%"
