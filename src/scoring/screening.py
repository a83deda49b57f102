"""Many poses -> their predictions in order, by worker processes that read, build graphs and, on a CPU, run the network.

On a CPU every worker does everything for its poses with one thread: threads that share one network wait for each other
at every operation, and graphs would have to travel between processes. On a GPU the workers build graphs while the
network runs here. A molecule that hangs or crashes its worker costs one row. For a few poses the workers are copies of
this process, models included, so that one pose is scored as soon as it would be here.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import torch

from src.chemistry.ligands import LigandRecord
from src.scoring.best_poses import BestPoses
from src.scoring.ensemble import Ensemble, load_ensemble
from src.scoring.pose_graphs import PoseGraphs, PoseReader
from src.scoring.poses import Pose
from src.scoring.prediction import Prediction
from src.scoring.trust import HIGH, LOW, MEDIUM
from src.system.own_ranks import usable_cores
from src.system.terminal import counted
from src.system.workers import WorkerFault, run_supervised

FEW_POSES = 48  # poses that are scored sooner than a worker process has loaded the libraries
POSE_TIMEOUT_S = 60.0  # time to read a pose and build its graph
NETWORK_TIMEOUT_S = 10.0  # time for a graph on one busy core; the largest networks need 1 s
MEMORY_GB = 12.0  # memory of a worker
MAX_WORKERS = 16
BATCH_SIZE = {"cpu": 8, "cuda": 64}  # poses; larger batches leave the cache of a CPU
MODELLED_BATCH_SIZE = 2  # molecules, each of which takes a second or more to pose

_Begun = tuple[int, Sequence[Pose], Callable[[], list]]  # number of a chunk, chunk, what gives its predictions


@dataclass(frozen=True)
class ScreeningOptions:
    """How poses are scored; nothing here changes a score by more than rounding."""

    batch_size: int | None = None  # poses scored at once; None: what suits the device
    num_workers: int | None = None  # processes; 0 for none and no protection, None: one a core
    num_jitters: int | None = None  # copies of each pose with noise
    one_receptor: bool = True  # a protein that cannot be read is an error, not the reason why one pose of many fails
    templates: tuple[LigandRecord, ...] = ()  # crystal ligands on which molecules without a pose are modelled


def screen(ensemble: Ensemble, poses: Iterable[Pose], options: ScreeningOptions) -> Iterator[tuple[Pose, Prediction]]:
    """Each pose with its prediction, in order; of any number of poses only a few are in memory.

    Raises:
        StructureError: the protein cannot be read, and there is one_receptor.
        WorkerStartError: worker processes do not start.
    """
    how = {"one_receptor": options.one_receptor, "templates": options.templates}
    reader = ensemble.reader(num_jitters=options.num_jitters or 0, **how)
    yield from _run(_Work(ensemble, reader, network_here=ensemble.device.type != "cpu"), poses, options)


def read_graphs(
    ensemble: Ensemble, poses: Iterable[Pose], options: ScreeningOptions
) -> Iterator[tuple[Pose, PoseGraphs]]:
    """Each pose with the graph that the models see, in order; read under the same supervision as for a score."""
    reader = ensemble.reader(one_receptor=options.one_receptor)
    return _run(_Reading(ensemble, reader, network_here=True), poses, options)


def _run(work: _Work, poses: Iterable[Pose], options: ScreeningOptions) -> Iterator[tuple[Pose, Any]]:
    """Each pose with what the work finds of it, in order."""
    poses = iter(poses)
    first = list(islice(poses, FEW_POSES + 1)) if options.num_workers is None else []
    num_all = len(first) if options.num_workers is None and len(first) <= FEW_POSES else None
    device, num_graphs = work.ensemble.device.type, 1 + (options.num_jitters or 0)
    num_workers = min(usable_cores(), MAX_WORKERS) if options.num_workers is None else options.num_workers
    size = options.batch_size or BATCH_SIZE.get(device, BATCH_SIZE["cpu"])
    if options.templates:
        size = min(size, MODELLED_BATCH_SIZE)
    chunks = _chunks(chain(first, poses), size)
    work.num_all, work.network_here = num_all, work.network_here or not num_workers
    if num_workers:
        begun = _supervised(work, chunks, num_workers, size * num_graphs, forked=num_all is not None)
    else:
        begun = ((number, chunk, work.begin(chunk, work(chunk))) for number, chunk in enumerate(chunks))
    for chunk, predictions in _in_order(_done(begun, num_late=int(device != "cpu"))):
        for pose, prediction in zip(chunk, predictions, strict=True):
            if prediction.modelled:
                pose, prediction = replace(pose, record=prediction.modelled), replace(prediction, modelled=None)
            yield pose, prediction


@dataclass
class Tally:
    """What is said of a screening at its end, and its best poses; no more than these are kept."""

    num_best: int = 0
    ligands: BestPoses | None = None  # the best pose of each ligand is kept
    num_poses: int = 0
    num_scored: int = 0
    trust: Counter[str] = field(default_factory=Counter)  # word -> scored poses
    _best: list[tuple[float, int, Pose, Prediction]] = field(default_factory=list)

    def add(self, pose: Pose, prediction: Prediction) -> None:
        self.num_poses += 1
        if self.ligands is not None:
            self.ligands.add(pose, prediction)
        if prediction.pk is None:
            return
        self.num_scored += 1
        self.trust[prediction.trust.word] += 1
        if self.num_best and self.ligands is None:
            # Of equal scores the earlier pose stays.
            entry = (prediction.pk, -self.num_poses, pose, prediction)
            (heapq.heappush if len(self._best) < self.num_best else heapq.heappushpop)(self._best, entry)

    @property
    def best(self) -> list[tuple[Pose, Prediction]]:
        """The highest pK first; the best poses of all ligands as they came first."""
        if self.ligands is not None:
            rows = list(self.ligands.rows())
            scored = [row for row in rows if row[1].pk is not None]
            return heapq.nlargest(self.num_best, scored, key=lambda row: row[1].pk) if self.num_best else rows
        return [(pose, prediction) for _, _, pose, prediction in sorted(self._best, key=lambda one: one[:2])[::-1]]

    def text(self, seconds: float) -> str:
        rate = self.num_poses / max(seconds, 1e-3)
        text = f"{self.num_scored} of {self.num_poses} poses scored in {seconds:.1f} s, {rate:.1f} a second"
        if self.num_scored:
            words = ", ".join(f"{word} {self.trust[word]}" for word in (HIGH, MEDIUM, LOW))
            text += f"; trust in them: {words} (columns trust and trust_reason)"
        lines = [text]
        if self.ligands is not None:
            lines.append(f"{counted(len(self.ligands), 'ligand')}, a row for the best pose of each")
            if self.ligands.num_unnamed:
                what = f"the property {self.ligands.by}" if self.ligands.by else "a title"
                one = self.ligands.num_unnamed == 1
                them = "1 pose" if one else f"{self.ligands.num_unnamed:,} poses"
                lines.append(f"{them} without {what} {'is a ligand of its' if one else 'are ligands of their'} own")
        return "\n".join(lines)


class _Work:
    """What a worker does with a chunk of poses."""

    num_all: int | None = None  # number of all poses, where there are but a few

    def __init__(self, ensemble: Ensemble, reader: PoseReader, *, network_here: bool):
        """
        Args:
            network_here: the network runs in this process, on what the workers read.
        """
        self.ensemble: Ensemble | None = ensemble
        self.checkpoints = tuple(dict.fromkeys(scorer.checkpoint for scorer in ensemble.scorers))
        self.num_models, self.reader, self.network_here = len(ensemble.scorers), reader, network_here

    def __getstate__(self) -> dict:
        return {**self.__dict__, "ensemble": None}  # a process of its own loads the models at its first chunk

    def __call__(self, chunk: Sequence[Pose]) -> list[Prediction] | list[PoseGraphs]:
        read = self.reader.read(chunk, is_all=len(chunk) == self.num_all)
        if not self.network_here:
            return self._own_ensemble().predict(chunk, read)
        for graph in (graph for one in read for graph in one.graphs):
            _ = graph.edges  # made by each worker, and not by the one process that feeds the network
        return read

    def begin(self, chunk: Sequence[Pose], answer: list) -> Callable[[], list[Prediction]]:
        """What gives the predictions, from what a worker answered; a GPU works on them from now on."""
        return self.ensemble.begin(chunk, answer) if self.network_here else lambda: answer

    def lost(self, pose: Pose, reason: str) -> Prediction:
        """What is said of a pose that took its worker with it."""
        where = pose.name, str(pose.protein), str(pose.ligand)
        return Prediction(*where, pk=None, warnings=(), failure=reason, molecule=pose.number, is_lost=True)

    def _own_ensemble(self) -> Ensemble:
        if self.ensemble is None:
            logging.disable(logging.WARNING)  # the process that started this one has said it all
            self.ensemble = load_ensemble(self.checkpoints, "cpu")
        return self.ensemble


class _Reading(_Work):
    """What a worker does where only graphs are wanted."""

    def begin(self, chunk: Sequence[Pose], answer: list) -> Callable[[], list[PoseGraphs]]:
        return lambda: answer

    def lost(self, pose: Pose, reason: str) -> PoseGraphs:
        return PoseGraphs(pose.name, reason)


def _alone(work: _Work, chunk: Sequence[Pose]) -> list[Prediction] | list[PoseGraphs]:
    """The work of a worker process, which has no threads beside its own."""
    torch.set_num_threads(1)
    return work(chunk)


def _supervised(
    work: _Work, chunks: Iterable[Sequence[Pose]], num_workers: int, num_graphs: int, *, forked: bool
) -> Iterator[_Begun]:
    """In the order in which workers finish."""
    num_models = 1 if work.network_here else work.num_models
    timeout_s = POSE_TIMEOUT_S + NETWORK_TIMEOUT_S * num_graphs * num_models
    limits = {"timeout_s": timeout_s, "memory_gb": MEMORY_GB, "forked": forked}
    in_work: dict[int, Sequence[Pose]] = {}

    def tasks() -> Iterator[Sequence[Pose]]:
        for number, chunk in enumerate(chunks):
            in_work[number] = chunk
            yield chunk

    function = partial(_alone, work)
    for number, answer in run_supervised(function, tasks(), num_workers=num_workers, **limits):
        chunk = in_work.pop(number)
        if not isinstance(answer, WorkerFault):
            yield number, chunk, work.begin(chunk, answer)
            continue
        found: list = []  # one by one, to blame the pose that did it
        for place, alone in run_supervised(function, [[pose] for pose in chunk], num_workers=1, **limits):
            pose = chunk[place]
            if isinstance(alone, WorkerFault):
                found.append(work.lost(pose, f"reading or scoring it {alone.reason}"))
            else:
                found += work.begin([pose], alone)()
        yield number, chunk, partial(list, found)


def _done(begun: Iterable[_Begun], *, num_late: int) -> Iterator[tuple[int, Sequence[Pose], list[Prediction]]]:
    """(number of the chunk, chunk, predictions), each read when so many more have begun: a GPU works on those."""
    waiting: deque[_Begun] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) > num_late:
            number, chunk, predictions = waiting.popleft()
            yield number, chunk, predictions()
    for number, chunk, predictions in waiting:
        yield number, chunk, predictions()


def _in_order(
    done: Iterable[tuple[int, Sequence[Pose], list[Prediction]]],
) -> Iterator[tuple[Sequence[Pose], list[Prediction]]]:
    """Those that are done too early wait; they are rows without graphs, of at most the time that one task may take."""
    waiting: dict[int, tuple[Sequence[Pose], list[Prediction]]] = {}
    following = 0
    for number, chunk, predictions in done:
        waiting[number] = chunk, predictions
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _chunks(poses: Iterator[Pose], size: int) -> Iterator[list[Pose]]:
    while chunk := list(islice(poses, size)):
        yield chunk
