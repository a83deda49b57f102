"""A series of scored ligands -> one HTML page without network and script."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.evaluation.web_page import document, escaped, section, table, tiles, warnings
from src.explanation.page import PAGE_CSS, colour_scale, drawing, largest_of, layout, picture, signed
from src.explanation.series import (
    MAX_EXPLAINED,
    SAME_PLACE,
    Agreements,
    Measured,
    Series,
    SeriesLigand,
    agreements,
    change,
    same_places,
)
from src.scoring.trust import HIGH, LOW, MEDIUM
from src.system.storage import write_text
from src.system.terminal import counted, listed

DRAWING_SIZE = 280, 210  # px
SERIES_CSS = """
.series table { width: 100%; }
.series td, .series tbody th { vertical-align: top; white-space: normal; overflow-wrap: anywhere;
  padding: .6rem .5rem; }
.series tbody th { text-align: left; width: 18.5rem; }
.series figure.ligand { width: 17.5rem; margin: .4rem 0; padding: .2rem; }
.series td b { font-size: 1.15rem; white-space: nowrap; }
.series small { white-space: normal; display: block; }
.parts { list-style: none; margin: .3rem 0 0; padding: 0; font-size: .8rem; min-width: 10rem; }
.parts li { display: flex; justify-content: space-between; gap: .6rem; text-align: left; }
.parts li + li { border-top: 1px solid var(--line); }
.parts li span:last-child { white-space: nowrap; }
.reference { background: var(--soft); padding: .1rem .4rem; border-radius: .3rem; font-size: .8rem; }
"""
HOW_TO_READ = (
    "The colours of a drawing are what each atom adds to the predicted pK, all drawings by one scale and turned like "
    "the reference. The difference to the reference is shared out twice, by atoms and by residues, and "
    f"each adds up to all of it. A shared atom stands within {SAME_PLACE:g} Å of an atom of the reference, a new one "
    "does not, and a lost one is the reference's alone. The difference says what this model made of two complexes, not "
    "what was measured. The 90 % interval is that of a pK; a difference has none, for errors of one series are alike."
)
AGREEMENT_NOTE = (
    "Brackets are 95 % bootstrap intervals. The RMSE of a size is that of a straight line through the measured values "
    "of the other ligands, which the score does not know."
)


@dataclass(frozen=True)
class SeriesPage:
    """Where the page of a series goes, and what it says beside the ligands."""

    path: Path
    series: Series
    model_name: str
    warnings: Sequence[str] = ()

    def close(self) -> Path:
        """Explain the ligands and write the page.

        Raises:
            SeriesError: the reference that was asked for was not scored.
            StorageError: the disk does not take the page.
        """
        reference = self.series.reference()
        if reference is not None:
            self.series.explain(reference[0])
        write_text(self.path, page(self.series, reference, self.model_name, self.warnings))
        return self.path


def page(
    series: Series, reference: tuple[SeriesLigand, str] | None, model_name: str, remarks: Sequence[str] = ()
) -> str:
    """The page of a series that is explained. Every name that comes from a file is escaped."""
    scored, proteins = series.scored, list(dict.fromkeys(one.pose.protein for one in series.ligands))
    title = f"{counted(len(scored), 'ligand')} in {listed([path.name for path in proteins], 3)}"
    trusts = Counter(one.prediction.trust.word for one in scored)
    numbers = [
        ("scored", len(scored)),
        ("not scored", len(series.ligands) - len(scored)),
        ("highest pK", f"{scored[0].prediction.pk:.2f}" if scored else "–"),
        ("trust high, medium, low", ", ".join(str(trusts[word]) for word in (HIGH, MEDIUM, LOW))),
    ]
    body = (
        f"<header><h1>{escaped(title)}</h1><p class='lead'>model: {escaped(model_name)}</p></header>"
        + tiles(numbers)
        + warnings([*remarks, *_remarks(series, proteins)])
        + _agreement_section(series)
        + (_ligand_section(series, *reference) if reference else "")
        + _failed_section([one for one in series.ligands if one.prediction.pk is None])
    )
    return document(escaped(title), body, PAGE_CSS + SERIES_CSS)


def _remarks(series: Series, proteins: Sequence[Path]) -> list[str]:
    remarks = []
    if len(proteins) > 1:
        remarks.append(
            f"{len(proteins)} protein files, taken for one target in one frame: residues are compared by their "
            "numbers, atoms by their places"
        )
    if series.num_left_out:
        remarks.append(
            f"the first {len(series.ligands):,} ligands; {series.num_left_out:,} more are not on this page: "
            f"--top {len(series.ligands)} takes the best of all"
        )
    return remarks


def _agreement_section(series: Series) -> str:
    measured = [one.measured for one in series.scored if one.measured]
    if not measured:
        none = "No measured values: a column pK of --pairs gives them, or --known"
        return f"<p class='note'>{none}. {escaped(_without_label(series.label_faults))}</p>"
    found: Agreements = agreements(series.scored)
    known, bounds = (
        sum(map(bool, flags)) for flags in zip(*((one.is_known, one.bound) for one in measured), strict=True)
    )
    left_out = [
        f"{known} of {len(measured)} measured ligands are left out: the scores are conditioned on them" * bool(known),
        f"{bounds} of {len(measured)} values are bounds and count for nothing here" * bool(bounds),
        _without_label(series.label_faults),
    ]
    rows = [(row.name, str(row.r), str(row.rank), _number(row.rmse)) for row in found.rows] if found.count > 1 else []
    header = ("ligands ranked by", "R", "rank correlation", "RMSE (pK)")
    return section(
        f"Agreement with measured values (n = {found.count})",
        f"<p><b>{escaped(found.verdict)}</b></p>",
        table(header, rows) + f"<p class='note'>{AGREEMENT_NOTE}</p>" if rows else "",
        *(f"<p class='note'>{escaped(text)}.</p>" for text in left_out if text),
    )


def _without_label(faults: Sequence[str]) -> str:
    return (
        f"no measured value in the table: {counted(len(faults), 'ligand')}, the first is {faults[0]}" if faults else ""
    )


def _ligand_section(series: Series, reference: SeriesLigand, why: str) -> str:
    scored = series.scored
    explained = [one.attribution for one in scored if one.attribution]
    largest = max((largest_of(one.of_ligand_atoms()) for one in explained), default=1.0)
    name = reference.prediction.ligand
    is_measured = any(one.measured for one in scored)
    rows = [
        (
            _ligand_cell(number, one, reference, largest),
            _pk_cell(one),
            *([_measured_cell(one)] if is_measured else []),
            "<span class='reference'>reference</span>" if one is reference else _change_cell(one, reference),
        )
        for number, one in enumerate(scored, start=1)
    ]
    header = ("ligand", "predicted pK, 90 % interval", *["measured pK"] * is_measured, f"difference to {escaped(name)}")
    bound = f"<p class='note'>The {MAX_EXPLAINED} ligands with the highest pK have drawings and contributions.</p>"
    return section(
        "Ligands",
        f"<p>Reference: <b>{escaped(name)}</b> ({escaped(why)}); --reference NAME takes another.</p>",
        f"{colour_scale(largest)}<p class='note'>{HOW_TO_READ}</p>",
        bound * (len(scored) > MAX_EXPLAINED),
        f"<div class='series'>{table(header, rows)}</div>",
    )


def _ligand_cell(number: int, one: SeriesLigand, reference: SeriesLigand, largest: float) -> str:
    svg = ""
    if one.attribution is not None:
        towards = None
        if one is not reference and reference.attribution is not None:
            places, points = same_places(one.attribution, reference.attribution), layout(reference.attribution)
            towards = np.where(places[:, None] >= 0, points[places], np.nan)
        svg = picture(drawing(one.attribution, DRAWING_SIZE, largest=largest, num_labels=0, turned_to=towards))
    told = one.prediction
    notes = [told.trust.reason, one.fault, *(f"warning: {text}" for text in told.warnings)]
    weight = "" if math.isnan(one.weight) else f", {one.weight:.0f} g/mol"
    notes.insert(0, f"{one.num_heavy_atoms} heavy atoms{weight}")
    return f"{number}. {escaped(told.ligand)}{svg}" + "".join(
        f"<small>{escaped(note)}</small>" for note in notes if note
    )


def _pk_cell(one: SeriesLigand) -> str:
    told = one.prediction
    notes = [f"{told.interval[0]:.1f} to {told.interval[1]:.1f}"] if told.interval else []
    notes += [f"trust {told.trust.word}"] if told.trust.word else []
    if told.poses_sd is not None:
        notes.append(f"best of {told.num_poses} poses, SD {told.poses_sd:.2f}")
    return f"<b>{told.pk:.2f}</b>" + "".join(f"<small>{escaped(note)}</small>" for note in notes)


def _measured_cell(one: SeriesLigand) -> str:
    if one.measured is None:
        return "–"
    measured: Measured = one.measured
    text = f"<b>{('', '≥ ', '≤ ')[measured.bound]}{measured.pk:.2f}</b>"
    if not measured.bound:
        text += f"<small>predicted {signed(one.prediction.pk - measured.pk, 2)}</small>"
    return text + "<small>known to the score</small>" * measured.is_known


def _change_cell(one: SeriesLigand, reference: SeriesLigand) -> str:
    total = f"<b>{signed(one.prediction.pk - reference.prediction.pk, 2)}</b>"
    if one.attribution is None or reference.attribution is None:
        return total
    found = change(one.attribution, reference.attribution, same_file=one.pose.protein == reference.pose.protein)
    by_atoms = {"new atoms": found.new_atoms, "lost atoms": found.lost_atoms, "shared atoms": found.same_place}
    by_residues = dict(found.residues) | {"all other residues": found.other_residues}
    return total + "".join(
        "<ul class='parts'>"
        + "".join(f"<li><span>{escaped(name)}</span><span>{signed(pk, 2)}</span></li>" for name, pk in parts.items())
        + "</ul>"
        for parts in (by_atoms, by_residues)
    )


def _failed_section(failed: Sequence[SeriesLigand]) -> str:
    rows = [(escaped(one.prediction.ligand), escaped(one.prediction.failure)) for one in failed]
    return section("Not scored", f"<div class='poses'>{table(('ligand', 'reason'), rows)}</div>" if rows else "")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
