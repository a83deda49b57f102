"""Findings -> a model card in Markdown: what the checkpoint is, what it was trained on, how good it is, its limits.

Headings after Mitchell et al., "Model Cards for Model Reporting", doi 10.1145/3287560.3287596.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from src.evaluation.findings import RANDOM_LEAKS, Findings
from src.evaluation.metrics import METRICS

LICENCE_NOTE = (
    "The weights were fitted to the structures and affinities of the data set named in the settings. PDBbind asks its "
    "users to register and to cite it; its terms bind whoever passes on the data, and this card passes on none."
)
LIMITS = (
    "Scores one given pose; it neither docks nor samples, and a wrong pose has a wrong score.",
    "pK of Kd, Ki and IC50 are learned as one scale, and an IC50 depends on its assay.",
    "Complexes unlike those of the training set do worse than the numbers above; see the leakage of the split.",
    "Not for decisions about patients.",
)
SHOWN_SETTINGS = (
    "visnet_hidden_channels",
    "visnet_num_layers",
    "visnet_lmax",
    "interaction_cutoff",
    "pocket_radius",
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
)


def model_card(findings: Findings) -> str:
    """The card as text; names that come from files cannot break its tables."""
    run, split = findings.run, findings.part.split
    parts = [
        "# Model card",
        f"ViSNet on the protein, ligand and interaction graph of a complex, predicting pK. "
        f"Checkpoint: `{_code(run.checkpoint)}`"
        + (f", {run.num_weights:,} weights" if run.num_weights else "")
        + (f"; joined with {_plain(run.joined_with)}." if run.joined_with else "."),
        "## Training data",
        _data(findings),
        "## How good it is",
        f"{len(findings.judged.codes)} complexes of the {findings.part.name} set, {_plain(split.method)} split. "
        f"Brackets: 95% bootstrap intervals from resampling {findings.judged.resampled}. RMSE and MAE in pK.",
        _table(["", *METRICS], [[name, *(row[m] for m in METRICS)] for name, row in findings.table.items()]),
        f"Pearson's R given ligand size: {findings.given_size}.",
        _table(
            ["kind", "complexes", *METRICS],
            [[g.name, g.count, *(g.metrics[m] for m in METRICS)] for g in findings.by_kind],
        ),
        *_powers(findings),
        "## Limits",
        "\n".join(f"- {line}" for line in LIMITS),
        "## Licence",
        LICENCE_NOTE,
        "## How it was made",
        _table(["setting", "value"], [[key, run.settings[key]] for key in SHOWN_SETTINGS if key in run.settings]),
        "Versions: " + ", ".join(_plain(f"{name} {version}") for name, version in run.versions.items()) + ".",
        f"These numbers again: `{_code(run.command)}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(findings: Findings) -> str:
    run, split = findings.run, findings.part.split
    sizes = ", ".join(f"{len(codes)} {_plain(part)}" for part, codes in split.codes.items())
    lines = [f"{_plain(split.method)} split: {sizes}."]
    if run.synthetic:
        lines.append("The complexes are synthetic: the numbers say nothing about real binding.")
    if split.method == "random":
        lines.append(f"It leaks: {RANDOM_LEAKS}.")
    lines += [f"{row.count} of {row.total} test complexes {_plain(row.label)}." for row in split.leakage]
    return "\n".join(f"- {line}" for line in lines)


def _powers(findings: Findings) -> list[str]:
    return [
        _table([title, "value"], [[name, value] for name, value in row.items()])
        for title, row in findings.powers.items()
    ]


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(value: object) -> str:
    """One line without what Markdown or HTML would act on; brackets and underscores within a word are none of that."""
    marks = r"[\\*|~]|(?<!\w)_|_(?!\w)|(?<=\])\(|:(?=//)|(?<=www)\."
    return re.sub(f"({marks})", r"\\\1", _on_a_line(value))


def _code(value: object) -> str:
    """As it stands in a code span, which ends at a backtick alone; not every program that shows Markdown knows that."""
    return _on_a_line(value).replace("](", "]\\(")


def _on_a_line(value: object) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("&", "&amp;").replace("<", "&lt;").replace("`", "'")
