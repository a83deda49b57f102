"""What co-folding and docking programs write into and beside a structure -> SMILES of its input, and confidences.

Files belong together by their names: without the words for what it is, the name of one beside it is part of that of the
structure (confidence_x_model_0.json, x_summary_confidences.json, x_query.json and x.yaml of x_model_0.cif).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MAX_BYTES = 4 * 2**20  # of a file beside a structure; full matrices of errors are larger, and not needed
_KIND = re.compile(
    r"^(confidence|affinity|summary_confidences)_|_?(summary_confidences|confidences_aggregated|confidences|query|data)$"
)
_YAML_SMILES = re.compile(r"""\s*(?:-\s*)?smiles:\s*(["']?)([^\s"']+)\1\s*(?:#.*)?""")  # a line
_SCORE = re.compile(r"^REMARK[ \t]+(?:VINA RESULT:|minimizedAffinity)[ \t]*(-?\d{1,9}(?:\.\d+)?)", re.MULTILINE)
# Name in a file, factor and shift, column.
_CONFIDENCES = (("iptm", 1.0, 0.0, "ipTM"), ("affinity_pred_value", -1.0, 6.0, "boltz_pIC50"))
_SMILES_REMARK = re.compile(r"^REMARK[ \t]+SMILES[ \t]+(?!IDX\b)(\S+)", re.MULTILINE)


def input_smiles(structure: Path) -> Iterator[tuple[str, str]]:
    """(name of the file, SMILES) of each ligand in inputs of Boltz, AlphaFold 3 and OpenFold3 beside a structure."""
    for path in _beside(structure):
        if path.suffix.lower() == ".json":
            yield from ((path.name, smiles) for smiles in _values(_json(path), "smiles"))
        else:
            matches = map(_YAML_SMILES.fullmatch, _text(path).splitlines())
            yield from ((path.name, match[2]) for match in matches if match)


def confidences(structure: Path) -> dict[str, float]:
    """ipTM, and the pIC50 of Boltz-2, whose own number is log10 of an IC50 in µmol/L; {} where nothing is beside."""
    found: dict[str, float] = {}
    for content in (_json(path) for path in _beside(structure) if path.suffix.lower() == ".json"):
        for name, factor, shift, column in _CONFIDENCES:
            value = content.get(name) if isinstance(content, Mapping) else None
            if isinstance(value, float) and math.isfinite(value):
                found.setdefault(column, round(shift + factor * value, 3))
    return found


def is_predicted(structure: Path, data: bytes) -> bool:
    """Whether the B factors are pLDDT: the file says so, or confidences lie beside it."""
    return b"_ma_qa_metric" in data or "ipTM" in confidences(structure)


def docking_score(text: str) -> float | None:
    """kcal/mol, of AutoDock Vina or smina, from the remarks of a pose."""
    match = _SCORE.search(text)
    return float(match[1]) if match else None


def remark_smiles(text: str) -> str:
    """What Meeko writes of the molecule that was docked; ''."""
    match = _SMILES_REMARK.search(text)
    return match[1] if match else ""


def _beside(structure: Path) -> list[Path]:
    """The files that belong to a structure, those with the longest names first."""
    stem = structure.name.lower().removesuffix(".gz").rpartition(".")[0]
    words, found = f"_{stem}_", []
    for path in structure.parent.iterdir():
        if path.suffix.lower() in (".json", ".yaml", ".yml"):
            core = _KIND.sub("", path.stem.lower())
            if not core or f"_{core}_" in words:
                found.append((-len(core), path.name, path))
    return [path for *_, path in sorted(found)]


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        if path.stat().st_size <= MAX_BYTES:
            return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _json(path: Path) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(_text(path))
    return None


def _values(content: Any, name: str) -> Iterator[str]:
    """The texts of that name anywhere in a file, one after the other; each level is looked through once."""
    waiting = [content]
    while waiting:
        here = waiting.pop()
        if isinstance(here, dict):
            if isinstance(here.get(name), str):
                yield here[name]
            waiting += reversed(list(here.values()))
        elif isinstance(here, list):
            waiting += reversed(here)
