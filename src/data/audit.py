"""Rows of complexes that cannot be used -> a table by reason, and when they are too many to train on the rest."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from src.data.dataset import Dataset, measured_pk
from src.pdbbind.index import SETTINGS, Skipped
from src.system.errors import UserError

FEW = 0.1  # fraction of the complexes; losing more of a data set of PDBbind's size is no accident
MAX_ROWS = 12  # rows of the table

# What differs from complex to complex in a reason: paths, file names, numbers.
_PARTICULARS = re.compile(r"\S*[\\/]\S*|\b\w+\.(?:pdb|ent|cif|sdf|mol2)(?:\.gz)?\b|-?\d+(?:\.\d+)?")


class AttritionError(UserError):
    """So many complexes cannot be used that something is wrong with the data set or its paths."""


def attrition_text(skipped: Sequence[Skipped], num_usable: int) -> str:
    """A table of the reasons, with an example of each; empty when few complexes are lost.

    Args:
        skipped: a row for each complex that is not used; those that settings leave out do not count.
        num_usable: complexes with a graph.
    """
    failed = _failed(skipped)
    num_all = len(failed) + num_usable
    if len(failed) <= FEW * num_all:
        return ""
    codes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in failed:
        codes[row.stage, _kind(row)].append(row.code)
    ranked = sorted(codes.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    lines = [f"ATTENTION: {len(failed)} of {num_all} complexes cannot be used ({100 * len(failed) / num_all:.0f} %):"]
    lines += [f"{len(named):>7} x {stage}: {kind}, such as {named[0]}" for (stage, kind), named in ranked[:MAX_ROWS]]
    if len(ranked) > MAX_ROWS:
        lines.append(f"{sum(len(named) for _, named in ranked[MAX_ROWS:]):>7} x other reasons, see skipped.csv")
    return "\n".join(lines)


def require_enough(skipped: Sequence[Skipped], num_usable: int, max_failed_fraction: float) -> None:
    """Stop before a training on what little is left.

    Raises:
        AttritionError: more than this fraction of the complexes cannot be used.
    """
    num_failed = len(_failed(skipped))
    num_all = num_failed + num_usable
    if num_failed > max_failed_fraction * num_all:
        raise AttritionError(
            f"{num_failed} of {num_all} complexes cannot be used, more than max_failed_fraction = "
            f"{max_failed_fraction:g}; the reasons stand above and in skipped.csv. Mend the data set, or raise "
            "max_failed_fraction to train on the rest"
        )


def _failed(skipped: Sequence[Skipped]) -> list[Skipped]:
    return [row for row in skipped if row.stage != SETTINGS]


def _kind(row: Skipped) -> str:
    """The reason without what is particular to one complex."""
    return _PARTICULARS.sub("..", row.reason.replace(row.code, ".."))[:100]


def audit(dataset: Dataset) -> str:
    """The table that --check-data prints: every line of the index is counted once."""
    stages = Counter(row.stage for row in dataset.skipped)
    labels = {
        "index": "unreadable lines",
        "settings": "left out by settings",
        "files": "files missing",
        "ligand": "ligand not usable",
        "protein": "protein not usable",
        "graph": "no graph",
        "worker": "crashed or timed out",
    }
    cache, graphs = dataset.cache, [example.graph for example in dataset.examples]
    lines = [f"{'lines in the index':<24}{dataset.num_lines:>7}"]
    lines += [f"  {text:<22}{stages[stage]:>7}" for stage, text in labels.items() if stages[stage]]
    lines.append(f"{'graphs':<24}{len(graphs):>7}   (built or tried now: {cache.num_built})")
    read_as = Counter(cache.ligands_read_as.values()).most_common()
    lines.append("  ligands read as       " + ", ".join(f"{how}: {count}" for how, count in read_as))
    if cache.notes:
        lines.append(f"  with remarks          {len(cache.notes)}, in manifest.json")
    if graphs:
        for noun, counts in (("atoms", [g.num_atoms for g in graphs]), ("edges", [g.num_edges for g in graphs])):
            lines.append(f"  {noun} per graph       median {np.median(counts):.0f}, largest {max(counts)}")
        pk = measured_pk(dataset.examples)
        lines.append(f"  pK                    {pk.min():.2f} to {pk.max():.2f}, mean {pk.mean():.2f}")
    reasons = Counter(row.reason for row in dataset.skipped if row.stage == SETTINGS)
    lines += [f"  left out: {count} x {reason}" for reason, count in reasons.most_common(8)]
    lines += [f"  {row.code} ({row.stage}): {row.reason}" for row in _failed(dataset.skipped)[:10]]
    lines.append(f"every row with its reason: {cache.folder / 'skipped.csv'}")
    return "\n".join(lines)
