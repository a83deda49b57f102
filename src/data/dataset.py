"""Index, files and cache -> labelled graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from src.data.cache import RETRIED, GraphCache, build_cache, protein_file
from src.graph import ComplexGraph
from src.pdbbind.affinity import IndexEntry
from src.pdbbind.folders import ComplexFiles
from src.pdbbind.index import Skipped, read_dataset, select_entries, write_skipped
from src.settings import DataSettings, GraphSettings, ProcessingSettings
from src.system.distributed import ALONE, World
from src.system.errors import UserError


class DatasetError(UserError):
    """A data set from which nothing can be learned."""


@dataclass(frozen=True)
class Example:
    """One complex with its label."""

    graph: ComplexGraph
    pk: float  # NaN where there is no label
    bound: int = 0  # 0 the label is exact, +1 pK is at least the label, -1 at most
    weight: float = 1.0  # in the loss and in the Gaussian process, above 0 and at most 1


@dataclass(frozen=True)
class Dataset:
    """Every usable complex, sorted by code, and a row for each that is not."""

    examples: tuple[Example, ...]
    skipped: tuple[Skipped, ...]
    num_lines: int
    cache: GraphCache
    files: dict[str, ComplexFiles]
    entries: dict[str, IndexEntry] = field(default_factory=dict)  # code -> what the index says, of the examples
    lost: tuple[str, ...] = ()  # codes of those skipped for what may be the machine's fault

    def without(self, codes: Collection[str]) -> Dataset:
        """Without these complexes, which a run had lost when it began: now they would make other data of it."""
        back = [code for code in self.entries if code in codes]
        reason = "was lost when this run began, and stays out of it"
        return replace(
            self,
            examples=tuple(example for example in self.examples if example.graph.code not in codes),
            skipped=(*self.skipped, *(Skipped(code, RETRIED, reason) for code in back)),
            entries={code: entry for code, entry in self.entries.items() if code not in codes},
            lost=tuple(sorted({*self.lost, *codes})),
        )

    def subset(self, codes: Sequence[str]) -> list[Example]:
        wanted = set(codes)
        return [example for example in self.examples if example.graph.code in wanted]

    def judged(self, codes: Sequence[str]) -> list[Example]:
        """The examples to measure errors on: those whose label is a value and not a bound."""
        return [example for example in self.subset(codes) if example.bound == 0]

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with every code, label, weight, atom and position."""
        digest = hashlib.blake2b(digest_size=4)
        for example in self.examples:
            weight = "" if example.weight == 1 else f"*{example.weight:g}"
            digest.update(f"{example.graph.code}={example.pk:.4f}{example.bound:+d}{weight};".encode())
            digest.update(example.graph.pos.numpy().tobytes() + example.graph.features.numpy().tobytes())
        return digest.hexdigest()


def load_dataset(
    data: DataSettings, graph: GraphSettings, processing: ProcessingSettings, world: World = ALONE
) -> Dataset:
    """Read the index, find the files, and load or build the graphs, with all ranks of the world.

    Raises:
        PDBbindError: when the index cannot be found or read.
    """
    index, files = read_dataset(Path(data.dataset_path), Path(data.index_file) if data.index_file else None)
    entries, left_out = select_entries(index.entries, data)
    skipped = [Skipped(f"line {bad.line_number}", "index", f"{bad.reason}: {bad.text}") for bad in index.bad_lines]
    usable, without_files = _with_files(entries, files, data.structure)
    cache = build_cache(usable, structure=data.structure, graph_settings=graph, processing=processing, world=world)
    skipped += [*left_out, *without_files, *cache.skipped]
    examples = sorted(
        (Example(cache.graphs[e.code], e.pk, e.bound, e.weight) for e in entries if e.code in cache.graphs),
        key=lambda example: example.graph.code,
    )
    write_skipped(cache.folder, skipped)
    num_lines = len(index.entries) + len(index.bad_lines)
    used = {entry.code: entry for entry in entries if entry.code in cache.graphs}
    return Dataset(tuple(examples), tuple(skipped), num_lines, cache, files, used, lost=cache.lost)


def measured_pk(examples: Sequence[Example]) -> np.ndarray:
    return np.array([example.pk for example in examples])


def _with_files(
    entries: Sequence[IndexEntry], files: dict[str, ComplexFiles], structure: str
) -> tuple[list[ComplexFiles], list[Skipped]]:
    usable, skipped = [], []
    for code in (entry.code for entry in entries):
        if code not in files:
            skipped.append(Skipped(code, "files", "no folder of this name"))
        elif not files[code].ligands:
            skipped.append(Skipped(code, "files", "no ligand file (.sdf or .mol2)"))
        elif protein_file(files[code], structure) is None:
            wanted = {"auto": "pocket or protein", "pocket": "pocket", "protein": "protein"}[structure]
            skipped.append(Skipped(code, "files", f"no {wanted} file"))
        else:
            usable.append(files[code])
    return usable, skipped
