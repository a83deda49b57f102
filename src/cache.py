"""Files of complexes -> graphs in processed_data/<version>-<fingerprint>/, in parallel, only what is missing."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import rdkit
import torch
from tqdm import tqdm

from src.atoms import StructureError
from src.data_processing import DATA_PROCESSING_VERSION, GraphError, build_graph, graph_fingerprint
from src.graph import ComplexGraph
from src.layouts import ComplexFiles
from src.ligands import read_ligand
from src.packing import PackedGraph, join, pack, unpack
from src.settings import GraphSettings, ProcessingSettings, as_dict
from src.storage import StorageError, read_plain, write_plain, write_text
from src.structures import read_protein
from src.workers import WorkerFault, run_supervised

log = logging.getLogger(__name__)

SHARD_SIZE = 256  # graphs in one file; a kill loses these and what was finished behind a slower complex
RETRIED = "worker"  # stage of faults that may be the machine's: such a complex is tried again in the next run

_ENTRY_FORM = {"shard": str, "road": str, "notes": list, "sources": list}
_SKIPPED_FORM = {"code": str, "stage": str, "reason": str, "sources": list}


@dataclass(frozen=True)
class Skipped:
    """One complex that is not used: at which stage it was given up, and why."""

    code: str
    stage: str
    reason: str


@dataclass(frozen=True)
class _Built:
    """One graph as a worker sends it."""

    graph: PackedGraph
    road: str
    notes: tuple[str, ...]

    @property
    def code(self) -> str:
        return self.graph.code


@dataclass(frozen=True)
class GraphCache:
    """The graphs of a data set, and what was learned while they were built."""

    folder: Path
    graphs: dict[str, ComplexGraph]
    skipped: tuple[Skipped, ...]
    num_built: int  # the others were in the cache
    ligand_roads: dict[str, str]  # code -> how its ligand was read
    notes: dict[str, tuple[str, ...]]  # code -> what a user should know, where there is something


def build_cache(
    complexes: Sequence[ComplexFiles],
    *,
    structure: str,
    graph_settings: GraphSettings,
    processing: ProcessingSettings,
) -> GraphCache:
    """Load the graphs of these complexes, after building those that are missing or whose files have changed.

    Args:
        complexes: the files of each complex; a code stands there once.
        structure: 'auto' takes the pocket file where there is one, else the protein.
    """
    cache = _Folder(Path(processing.processed_data_dir), graph_settings)
    current = {files.code for files in complexes if cache.is_current(files, structure)}
    missing = [files for files in complexes if files.code not in current]
    if missing:
        log.info("building %d graphs (%d are in %s)", len(missing), len(current), cache.folder)
    build = functools.partial(_build_one, structure=structure, settings=graph_settings)
    results = run_supervised(
        build,
        missing,
        num_workers=min(processing.num_workers, len(missing)),
        timeout_s=processing.timeout_s,
        memory_gb=processing.memory_gb,
    )
    try:
        progress = tqdm(results, total=len(missing), desc="graphs", unit="complex", disable=None)
        for number, result in progress:
            if isinstance(result, WorkerFault):
                result = Skipped(missing[number].code, RETRIED, result.reason), []
            cache.add(number, *result)
    finally:
        results.close()
        cache.flush(everything=True)
    return cache.collect([files.code for files in complexes], num_built=len(missing))


def other_caches(processed_data_dir: Path, current: Path) -> list[tuple[Path, int, str]]:
    """Cache folders of other versions or settings: path, size in bytes, and the command that deletes it."""
    manifests = sorted(processed_data_dir.glob("*/manifest.json"))
    folders = [manifest.parent for manifest in manifests if manifest.parent.resolve() != current.resolve()]
    return [
        (
            folder,
            sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
            f"rm -r {shlex.quote(str(folder))}",
        )
        for folder in folders
    ]


def protein_file(files: ComplexFiles, structure: str) -> Path | None:
    """The file that the protein is read from, or None where the setting asks for one that is not there."""
    if structure == "auto":
        return files.pocket or files.protein
    return files.pocket if structure == "pocket" else files.protein


def _build_one(files: ComplexFiles, *, structure: str, settings: GraphSettings) -> tuple[_Built | Skipped, list]:
    """One graph or the reason why there is none, and the signatures of the files as they were before the reading."""
    try:
        sources = _sources(files, structure)
    except OSError as error:  # a folder under a file's name, no permission, a network drive that is gone
        return Skipped(files.code, "files", str(error)), []
    return _read_and_build(files, structure, settings), sources


def _read_and_build(files: ComplexFiles, structure: str, settings: GraphSettings) -> _Built | Skipped:
    """The one place where a complex that cannot be used becomes a row."""
    stage = "ligand"
    try:
        ligand = read_ligand(files.ligands)
        stage = "protein"
        path = protein_file(files, structure)
        protein = read_protein(path, near=ligand.atoms.pos, radius=settings.pocket_radius)
        stage = "graph"
        graph, notes = build_graph(files.code, ligand, protein, settings)
        if not graph.contacts.shape[1]:
            raise GraphError(
                f"no protein atom within {settings.interaction_cutoff:g} Å of the ligand: "
                "do both files use the same coordinate frame?"
            )
    except (StructureError, GraphError) as error:
        passing = isinstance(error.__cause__, OSError)  # a drive that was away; tried again next time
        return Skipped(files.code, RETRIED if passing else stage, str(error))
    except MemoryError:
        raise  # the supervisor replaces this worker and writes the row
    except Exception as error:  # one odd file among 20,000 must not stop the run; the row names the fault
        log.exception("%s: unexpected error", files.code)
        return Skipped(files.code, RETRIED, f"unexpected {type(error).__name__} at stage {stage}: {error}")
    return _Built(pack(graph), ligand.road, notes)


class _Folder:
    """One cache folder while it is filled: shards of graphs, and the manifest that says where each one is."""

    def __init__(self, processed_data_dir: Path, settings: GraphSettings):
        self.folder = processed_data_dir / f"{DATA_PROCESSING_VERSION}-{graph_fingerprint(settings)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings = settings
        self.entries: dict[str, dict] = {}
        self.skipped: dict[str, dict] = {}
        self.graphs: dict[str, ComplexGraph] = {}
        self._waiting: dict[int, tuple[_Built | Skipped, list]] = {}
        self._next = 0
        self._read()

    def is_current(self, files: ComplexFiles, structure: str) -> bool:
        """Whether the files of a complex are those that its graph, or its row in skipped, was made from."""
        entry = self.entries.get(files.code) or self.skipped.get(files.code)
        if entry is None or entry.get("stage") == RETRIED:
            return False
        return _unchanged(entry["sources"], files, structure)

    def add(self, number: int, result: _Built | Skipped, sources: list) -> None:
        """Take result `number`; shards are filled in the order of numbers, whatever order workers finish in."""
        self._waiting[number] = (result, sources)
        ready = 0
        while self._next + ready in self._waiting:
            ready += 1
        if ready >= SHARD_SIZE:
            self.flush()

    def flush(self, *, everything: bool = False) -> None:
        """Write what is ready into a new shard, then the manifest that names it."""
        numbers = sorted(self._waiting) if everything else range(self._next, self._next + SHARD_SIZE)
        taken = [self._waiting.pop(number) for number in numbers]
        if not taken:
            return
        self._next += len(taken)
        built = [(result, sources) for result, sources in taken if isinstance(result, _Built)]
        for result, sources in taken:
            self.entries.pop(result.code, None)
            self.skipped.pop(result.code, None)
            if isinstance(result, Skipped):
                self.skipped[result.code] = {**asdict(result), "sources": sources}
        if built:
            shard = f"graphs-{1 + max((int(e['shard'][7:12]) for e in self.entries.values()), default=-1):05d}.pt"
            joined = join([result.graph for result, _ in built])
            write_plain(self.folder / shard, joined)
            for graph, (result, sources) in zip(unpack(joined), built, strict=True):
                self.graphs[result.code] = graph
                self.entries[result.code] = {
                    "shard": shard,
                    "road": result.road,
                    "notes": list(result.notes),
                    "sources": sources,
                }
        self._write_manifest()

    def collect(self, codes: Iterable[str], *, num_built: int) -> GraphCache:
        codes = list(codes)
        used = [code for code in codes if code in self.entries]
        return GraphCache(
            folder=self.folder,
            graphs={code: self.graphs[code] for code in used},
            skipped=tuple(
                Skipped(code, self.skipped[code]["stage"], self.skipped[code]["reason"])
                for code in codes
                if code in self.skipped
            ),
            num_built=num_built,
            ligand_roads={code: self.entries[code]["road"] for code in used},
            notes={code: tuple(self.entries[code]["notes"]) for code in used if self.entries[code]["notes"]},
        )

    def _read(self) -> None:
        """Load manifest and shards; what cannot be read is named and will be built again."""
        path = self.folder / "manifest.json"
        if not path.exists():
            return
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if manifest["rdkit"] != rdkit.__version__:
                log.warning("%s: made with RDKit %s; the graphs are built again", path, manifest["rdkit"])
                return
            entries, skipped = dict(manifest["entries"]), dict(manifest["skipped"])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s); the graphs are built again", path, error)
            return
        self.entries = {code: entry for code, entry in entries.items() if _has_form(entry, _ENTRY_FORM)}
        self.skipped = {code: entry for code, entry in skipped.items() if _has_form(entry, _SKIPPED_FORM)}
        odd = sorted({*entries, *skipped} - {*self.entries, *self.skipped})
        if odd:
            log.warning("%s: entries of the wrong form are built again: %s", path, ", ".join(odd[:10]))
        for shard in sorted({entry["shard"] for entry in self.entries.values()}):
            of_shard = {code: entry for code, entry in self.entries.items() if entry["shard"] == shard}
            try:
                rows = {graph.code: graph for graph in unpack(read_plain(self.folder / shard))}
                _require_finite(rows.values())
                self.graphs.update({code: rows[code] for code in of_shard})
            except (StorageError, KeyError, RuntimeError) as error:
                log.warning("%s cannot be used (%s); its %d graphs are built again", shard, error, len(of_shard))
                self.entries = {code: entry for code, entry in self.entries.items() if code not in of_shard}

    def _write_manifest(self) -> None:
        manifest = {
            "data_processing_version": DATA_PROCESSING_VERSION,
            "graph_settings": as_dict(self.settings),
            "rdkit": rdkit.__version__,
            "entries": dict(sorted(self.entries.items())),
            "skipped": dict(sorted(self.skipped.items())),
        }
        write_text(self.folder / "manifest.json", json.dumps(manifest, separators=(",", ":"), ensure_ascii=False))


def _has_form(entry: object, form: dict[str, type]) -> bool:
    """Whether a part of a manifest, which anybody can edit, is what this program writes."""
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in form.items()):
        return False
    signatures = all(
        isinstance(one, list) and [type(v) for v in one] == [str, int, int, str] for one in entry["sources"]
    )
    return signatures and ("shard" not in entry or re.fullmatch(r"graphs-\d{5}\.pt", entry["shard"]) is not None)


def _require_finite(graphs: Iterable[ComplexGraph]) -> None:
    for graph in graphs:
        if not (torch.isfinite(graph.pos).all() and torch.isfinite(graph.fade).all()):
            raise StorageError(f"{graph.code} has a coordinate that is NaN or infinite")


def _source_files(files: ComplexFiles, structure: str) -> list[Path]:
    protein = protein_file(files, structure)
    return [*files.ligands, *([protein] if protein else [])]


def _sources(files: ComplexFiles, structure: str) -> list:
    """Name, size in bytes, modification time in ns and content hash of each file a graph is made from."""
    return [_signature(path) for path in _source_files(files, structure)]


def _signature(path: Path) -> list:
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns, _content_hash(path)]


def _content_hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _unchanged(sources: list, files: ComplexFiles, structure: str) -> bool:
    paths = _source_files(files, structure)
    if [path.name for path in paths] != [name for name, *_ in sources]:
        return False
    for path, (_, size, mtime_ns, content) in zip(paths, sources, strict=True):
        if not path.is_file():
            return False
        stat = path.stat()
        if stat.st_size != size or (stat.st_mtime_ns != mtime_ns and _content_hash(path) != content):
            return False
    return True
