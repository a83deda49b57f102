"""Files of complexes -> graphs in processed_data/<version>-<fingerprint>/, in parallel, only what is missing."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import rdkit
import torch
from tqdm import tqdm

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data.manifest import Manifest, file_signatures
from src.data.packing import ARRAYS, PackedGraph, join, pack, unpack
from src.data_processing import DATA_PROCESSING_VERSION, GraphError, build_graph, graph_fingerprint
from src.graph import ComplexGraph
from src.pdbbind.folders import ComplexFiles
from src.pdbbind.index import Skipped
from src.settings import GraphSettings, ProcessingSettings, as_dict
from src.system.distributed import ALONE, World
from src.system.locks import in_turn
from src.system.storage import StorageError, prepare_folder, read_plain, remove_temporaries, write_plain
from src.system.terminal import counted
from src.system.workers import WorkerFault, run_supervised

log = logging.getLogger(__name__)

PART = "part-"  # folder of what one of several ranks builds, and its rank
SHARD_SIZE = 256  # graphs in one file; a kill loses these and what was finished behind a slower complex
RETRIED = "worker"  # stage of faults that may be the machine's, of which no record is kept


@dataclass(frozen=True)
class _Built:
    """One graph as a worker sends it."""

    graph: PackedGraph
    read_as: str
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
    num_built: int  # complexes built now; the others were in the cache
    ligands_read_as: dict[str, str]  # code -> how its ligand was read
    notes: dict[str, tuple[str, ...]]  # code -> what a user should know, where there is something
    lost: tuple[str, ...] = ()  # codes of those skipped for what may be the machine's fault; the next call tries again


def build_cache(
    complexes: Sequence[ComplexFiles],
    *,
    structure: str,
    graph_settings: GraphSettings,
    processing: ProcessingSettings,
    world: World = ALONE,
) -> GraphCache:
    """Load the graphs of these complexes, after building those that are missing or whose files have changed.

    One run at a time builds in a folder, with all its ranks; what is there is read without waiting.

    Args:
        complexes: the files of each complex; a code stands there once.
        structure: 'auto' takes the pocket file where there is one, else the protein.

    Raises:
        StorageError: the disk does not take the graphs; those that were written stay.
    """
    cache = _Folder(Path(processing.processed_data_dir), graph_settings, structure)
    missing = cache.load(complexes)
    if missing:
        prepare_folder(cache.folder)
        with in_turn(cache.folder):
            cache.take_in_parts()
            missing = left = cache.load(complexes)  # another process may have built them meanwhile
            if missing and world.size > 1:
                options = {"structure": structure, "settings": graph_settings, "processing": processing}
                world.ask(functools.partial(_build_part, missing=missing, **options))
                cache.take_in_parts()
                left = cache.load(complexes)  # what was lost, or is seen by other ranks alone
            _build(cache, left, processing)
    return cache.collect([files.code for files in complexes], num_built=len(missing))


def other_caches(processed_data_dir: Path, current: Path) -> list[tuple[Path, int, str]]:
    """Cache folders of other versions or settings: path, size in bytes, and the command that deletes it."""
    manifests = sorted(processed_data_dir.glob("*/manifest.json"))
    folders = [manifest.parent for manifest in manifests if manifest.parent.resolve() != current.resolve()]
    return [(folder, sum(map(_size, folder.rglob("*"))), f"rm -r {shlex.quote(str(folder))}") for folder in folders]


def protein_file(files: ComplexFiles, structure: str) -> Path | None:
    """The file that the protein is read from, or None where the setting asks for one that is not there."""
    if structure == "auto":
        return files.pocket or files.protein
    return files.pocket if structure == "pocket" else files.protein


def _build_part(
    world: World,
    *,
    missing: Sequence[ComplexFiles],
    structure: str,
    settings: GraphSettings,
    processing: ProcessingSettings,
) -> None:
    """Build this rank's share into a folder of its own, with its share of this computer's worker processes."""
    part = _Folder(Path(processing.processed_data_dir), settings, structure, part=f"{PART}{world.rank}")
    prepare_folder(part.folder)
    num_workers = min(processing.num_workers, max(1, processing.num_workers // world.num_local))
    _build(part, part.load(world.every(missing)), replace(processing, num_workers=num_workers))


def _build(cache: _Folder, missing: Sequence[ComplexFiles], processing: ProcessingSettings) -> None:
    """Build these graphs into the folder; whatever ends this early, what is finished is kept."""
    if missing:
        graphs = counted(len(missing), "graph")
        log.info("building %s (%d are in %s)", graphs, len(cache.found), cache.folder)
    lost = _build_all(cache, missing, processing, first=0)
    if lost:
        log.info("%d complexes were lost with their worker processes and are tried once more", len(lost))
        _build_all(cache, lost, processing, first=len(missing))
    cache.clean_up()


def _build_all(
    cache: _Folder, missing: Sequence[ComplexFiles], processing: ProcessingSettings, *, first: int
) -> list[ComplexFiles]:
    """Build these graphs as the results from number `first` on; returns those that were lost with their workers."""
    results = run_supervised(
        functools.partial(_build_one, structure=cache.structure, settings=cache.settings),
        missing,
        num_workers=min(processing.num_workers, len(missing)),
        timeout_s=processing.timeout_s,
        memory_gb=processing.memory_gb,
    )
    lost = []
    try:
        is_quiet = not log.isEnabledFor(logging.WARNING)  # as all ranks but the main one are
        progress = tqdm(results, total=len(missing), desc="graphs", unit="complex", disable=is_quiet or None)
        for number, result in progress:
            if isinstance(result, WorkerFault):
                lost.append(missing[number])
                result = Skipped(missing[number].code, RETRIED, result.reason), []
            cache.add(first + number, *result)
    finally:
        results.close()
        cache.flush(everything=True)
    return lost


def _build_one(files: ComplexFiles, *, structure: str, settings: GraphSettings) -> tuple[_Built | Skipped, list]:
    """One graph or the reason why there is none, and the signatures of the files as they were before the reading."""
    paths = _source_files(files, structure)
    if len(missing := [str(path) for path in paths if not os.path.exists(path)]) > 1:
        return Skipped(files.code, "files", f"{' and '.join(missing)}: there are no such files"), []
    try:
        sources = file_signatures(paths)
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
    return _Built(pack(graph), ligand.read_as, notes)


class _Folder:
    """One cache folder: shards of graphs, and the manifest that says where each one is."""

    def __init__(self, processed_data_dir: Path, settings: GraphSettings, structure: str, part: str = ""):
        self.folder = processed_data_dir / f"{DATA_PROCESSING_VERSION}-{graph_fingerprint(settings)}" / part
        self.settings, self.structure = settings, structure
        about = {
            "data_processing_version": DATA_PROCESSING_VERSION,
            "graph_settings": as_dict(settings),
            "rdkit": rdkit.__version__,
        }
        self.manifest = Manifest(self.folder, about)
        self.found: dict[str, dict] = {}  # code -> record of the graph, or of the reason why there is none
        self.graphs: dict[str, dict[str, ComplexGraph]] = {}  # shard -> code -> graph
        self._waiting: dict[int, tuple[_Built | Skipped, list]] = {}
        self._next = 0

    def load(self, complexes: Iterable[ComplexFiles]) -> list[ComplexFiles]:
        """Find the graphs that are on disk now, made from these files as they are; returns the complexes without."""
        self.manifest.read()
        missing, self.found = [], {}
        for files in complexes:
            record = self.manifest.find(files.code, _source_files(files, self.structure))
            shard = record and record.get("shard")
            if record is None or (shard and files.code not in self._shard(shard)):
                missing.append(files)
            else:
                self.found[files.code] = record
        for shard in [name for name, graphs in self.graphs.items() if not graphs]:
            self.manifest.forget_shard(shard)
        return missing

    def take_in_parts(self) -> None:
        """Move what ranks have built to the rest; a run that was killed may have left some."""
        self.manifest.read()
        for folder in sorted(self.folder.glob(f"{PART}*")):
            self.manifest.take_in(Manifest(folder, self.manifest.about))
            shutil.rmtree(folder, ignore_errors=True)

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
        if built:
            self._write_shard(built)
        for result, sources in taken:
            if isinstance(result, Skipped):
                record = {"stage": result.stage, "reason": result.reason, "sources": sources}
                self.found[result.code] = record
                if not _may_pass(record):
                    self.manifest.add(result.code, record)
        self.manifest.write()

    def clean_up(self) -> None:
        """Remove shards that nothing refers to any more, and what a killed process left half written."""
        for pattern in ("graphs-*.pt", "manifest.json"):
            remove_temporaries(self.folder, pattern)
        for path in self.folder.glob("graphs-*.pt"):
            if self.manifest.is_superseded(path.name):
                with contextlib.suppress(OSError):  # untidy, not wrong
                    path.unlink()

    def collect(self, codes: Sequence[str], *, num_built: int) -> GraphCache:
        used = {code: self.found[code] for code in codes if "shard" in self.found[code]}
        skipped = [(code, self.found[code]) for code in codes if code not in used]
        return GraphCache(
            folder=self.folder,
            graphs={code: self.graphs[record["shard"]][code] for code, record in used.items()},
            skipped=tuple(Skipped(code, record["stage"], record["reason"]) for code, record in skipped),
            num_built=num_built,
            ligands_read_as={code: record["read_as"] for code, record in used.items()},
            notes={code: tuple(record["notes"]) for code, record in used.items() if record["notes"]},
            lost=tuple(code for code, record in skipped if _may_pass(record)),
        )

    def _shard(self, name: str) -> dict[str, ComplexGraph]:
        """The graphs of a shard; none, and a word about it, where it cannot be used."""
        if name not in self.graphs:
            try:
                packed = read_plain(self.folder / name)
                _require_finite(packed)
                graphs = {graph.code: graph for graph in unpack(packed)}
            except (StorageError, KeyError, RuntimeError) as error:
                log.warning("%s cannot be used (%s); its graphs are built again", name, error)
                graphs = {}
            self.graphs[name] = graphs
        return self.graphs[name]

    def _write_shard(self, built: Sequence[tuple[_Built, list]]) -> None:
        name = self.manifest.next_shard()
        joined = join([result.graph for result, _ in built])
        write_plain(self.folder / name, joined)
        self.manifest.num_shards += 1
        self.graphs[name] = {graph.code: graph for graph in unpack(joined)}
        for result, sources in built:
            record = {"shard": name, "read_as": result.read_as, "notes": list(result.notes), "sources": sources}
            self.found[result.code] = record
            self.manifest.add(result.code, record)


def _may_pass(record: dict) -> bool:
    """Whether a complex without a graph may have one though its files stay as they are."""
    return record["stage"] == RETRIED or not record["sources"]


def _require_finite(shard: dict) -> None:
    finite = torch.isfinite(shard["pos"]).all(1) & torch.isfinite(shard["fade"])  # [atoms]
    if not finite.all():
        graphs = finite.split(shard["lengths"][:, ARRAYS.index("pos")].tolist())
        code = next(code for code, graph in zip(shard["codes"], graphs, strict=True) if not graph.all())
        raise StorageError(f"{code} has a coordinate that is NaN or infinite")


def _source_files(files: ComplexFiles, structure: str) -> list[Path]:
    protein = protein_file(files, structure)
    return [*files.ligands, *([protein] if protein else [])]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # another process has just renamed or deleted it
        return 0
