"""One process, or several that train one model together: who deals with what, sums over all, and what all are told.

`World` is a process alone. `Ranks` are the processes that torchrun has started, or those that `own_ranks` starts
on the cores of one computer. Both have the same methods, so that nothing else asks how many processes there are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from src.system.stop_signals import StopSignals

log = logging.getLogger(__name__)

STORE = "AIDD_STORE"  # environment: the file by which the ranks of one computer find each other
PATIENCE = timedelta(days=30)  # while one rank builds graphs the others wait; one that dies ends the waiting at once
ROLL_CALL_S = 2.0  # in which a rank that lives says so when another has died
POLL_S, GRACE_S = 1.0, 3.0  # how often a rank looks for its parent, and how long it may save without one
WAIT_S = 0.01  # how often the main rank looks for the others at the start


class RankLostError(RuntimeError):
    """Another process of the same training has ended; the message names its rank."""


class World:
    """A process that trains alone."""

    rank, size, local_rank = 0, 1, 0
    num_local = 1  # ranks on this computer

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes, prints and decides."""
        return self.rank == 0

    def deal(self, costs: Sequence[float] | np.ndarray) -> list[int]:
        """Which members of a batch this rank takes, by their numbers; the costs of all ranks are nearly equal."""
        shares: list[list[int]] = [[] for _ in range(self.size)]
        loads = [0.0] * self.size
        for number in np.argsort(-np.asarray(costs, dtype=float), kind="stable").tolist():
            least = loads.index(min(loads))
            shares[least].append(number)
            loads[least] += float(costs[number])
        return sorted(shares[self.rank])

    def every(self, members: Sequence[Any]) -> Sequence[Any]:
        """The members that this rank goes through where order does not matter."""
        return members[self.rank :: self.size]

    def collected(self, rows: list[Any]) -> list[Any]:
        """The rows of all ranks, one for each member dealt by `every`, in the order of the members."""
        return rows

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank."""
        return [value]

    def meet(self) -> None:
        """Wait until every rank is here; after it the others wait for the next word of the main rank."""

    def of_others(self, make: Callable[[], Any]) -> list[Any]:
        """What all ranks make, by rank, where one alone would need nothing from itself."""
        return []

    def from_main(self, value: Any = None) -> Any:
        """The value that the main rank gives, whatever this one has."""
        return value

    def ask(self, task: Callable[[World], Any]) -> list[Any]:
        """What a task gives on every rank, by rank: asked by the main one, while the others are in `answer`."""
        return [task(self)]

    def answer(self) -> Any:
        """Do what the main rank asks for, until it tells the plan of a training, or None: there is nothing to do."""

    def average(
        self, parameters: Sequence[nn.Parameter], weight: float, sums: Sequence[float]
    ) -> tuple[list[float], bool]:
        """Leave in every `.grad` the mean over ranks, each with its weight; what no rank has stays None.

        Returns:
            The sums over ranks of the weight and of the other numbers, and whether the mean is finite.
        """
        return [weight, *sums], True

    def agreed(self, signals: StopSignals) -> StopSignals | AgreedSignals:
        """The signals as all ranks know of them: at the same step."""
        return signals

    def seed(self, *place: int) -> None:
        """Begin the random numbers of a place in the training anew, other ones on each rank; alone they go on."""

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        pass


ALONE = World()


class AgreedSignals:
    """What all ranks have agreed on: a signal to one of them counts for all, from the same step on."""

    def __init__(self, own: StopSignals):
        self.own = own
        self.received: signal.Signals | None = None
        self.save_asked = False

    def protected(self) -> contextlib.AbstractContextManager[None]:
        return self.own.protected()


class Ranks(World):
    """One of several processes; all of them call the same methods in the same order."""

    def __init__(self, rank: int, size: int, local_rank: int, store: dist.Store, reasons: Callable[[], str] = str):
        """
        Args:
            reasons: what is known of ranks that have ended, for the message.
        """
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._store, self._reasons = store, reasons
        self._signals: AgreedSignals | None = None
        self.num_local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        self._others_wait = True  # for a word of the main rank
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        with self._talking():
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)

    def collected(self, rows: list[Any]) -> list[Any]:
        told = self.gather((rows, self._wish()))
        self._agree([wish for _, wish in told])
        whole: list[Any] = [None] * sum(len(part) for part, _ in told)
        for rank, (part, _) in enumerate(told):
            whole[rank :: self.size] = part
        return whole

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        with self._talking():
            dist.all_gather_object(values, value)
        return values

    def meet(self) -> None:
        self.gather(None)
        self._others_wait = True

    def of_others(self, make: Callable[[], Any]) -> list[Any]:
        return self.gather(make())

    def from_main(self, value: Any = None) -> Any:
        box = [value if self.is_main else None]
        with self._talking():
            dist.broadcast_object_list(box, src=0)
        self._others_wait = False
        return box[0]

    def ask(self, task: Callable[[World], Any]) -> list[Any]:
        self.from_main(task)
        answers = self.gather(task(self))
        self._others_wait = True  # again; where a task has failed they do not
        return answers

    def answer(self) -> Any:
        while callable(word := self.from_main()):
            self.gather(word(self))
        return word

    def average(
        self, parameters: Sequence[nn.Parameter], weight: float, sums: Sequence[float]
    ) -> tuple[list[float], bool]:
        """One sum over all ranks, of gradients and numbers together."""
        has_wish = any(self._wish())
        flags = [float(parameter.grad is not None) for parameter in parameters]
        first = parameters[0]
        numbers = torch.tensor([weight, *sums, has_wish, *flags], dtype=first.dtype, device=first.device)
        flat = torch.cat([*(_weighted(parameter, weight) for parameter in parameters), numbers])
        with self._talking():
            dist.all_reduce(flat)
        *parts, numbers = flat.split([*(parameter.numel() for parameter in parameters), len(numbers)])
        *summed, is_finite = torch.cat([numbers, torch.isfinite(flat).all().view(1)]).tolist()
        flat.div_(summed[0])
        for parameter, part, flag in zip(parameters, parts, summed[len(sums) + 2 :], strict=True):
            parameter.grad = part.view_as(parameter) if flag else None
        if summed[len(sums) + 1]:
            self._agree(self.gather(self._wish()))
        return summed[: len(sums) + 1], bool(is_finite)

    def agreed(self, signals: StopSignals) -> AgreedSignals:
        self._signals = AgreedSignals(signals)
        return self._signals

    def seed(self, *place: int) -> None:
        # So a run goes on with the same numbers, though no checkpoint has the state of every rank.
        state = np.random.SeedSequence([*place, self.rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.is_main and self._others_wait:  # there is nothing more to train
            with contextlib.suppress(RankLostError):
                self.from_main(None)
        if kind is None:
            dist.destroy_process_group()

    def _wish(self) -> tuple[signal.Signals | None, bool]:
        """The signals that have come to this process and that the others do not know of yet."""
        if self._signals is None:
            return None, False
        own, agreed = self._signals.own, self._signals
        return (own.received if agreed.received is None else None), own.save_asked

    def _agree(self, wishes: Sequence[tuple[signal.Signals | None, bool]]) -> None:
        signals = self._signals
        if signals is None:
            return
        signals.received = signals.received or next((one for one, _ in wishes if one is not None), None)
        if any(save for _, save in wishes):
            signals.save_asked = True
        if wishes[self.rank][1]:
            signals.own.save_asked = False

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what torch raises for a connection that has ended
            reason = self._reasons() or self._silent() or str(error)
            raise RankLostError(
                f"rank {self.rank} of {self.size} cannot go on: {reason}. The same command goes on from the last "
                "checkpoint"
            ) from error

    def _silent(self) -> str:
        """Every rank that is alive says so in the store; which do not."""
        silent = []
        with contextlib.suppress(RuntimeError):  # the store may be gone with torchrun
            self._store.set(f"here {self.rank}", "")
            end = time.monotonic() + ROLL_CALL_S
            for rank in range(self.size):
                while not (is_here := self._store.check([f"here {rank}"])) and time.monotonic() < end:
                    time.sleep(WAIT_S)
                silent += [] if is_here else [f"rank {rank} has ended"]
        return ", ".join(silent)


def join_world() -> World:
    """The process alone, or with those that the environment tells of: torchrun's, or those of `own_ranks`."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys() or not {STORE, "MASTER_ADDR"} & os.environ.keys():
        return World()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        logging.disable(logging.WARNING)  # the main rank says the same
    if STORE in os.environ:
        store: dist.Store = dist.FileStore(os.environ[STORE], size)
        store.set(f"come {rank}", "")
        torch.set_num_threads(1)
        _watch_parent(lambda: None)
    else:
        store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=PATIENCE))
        _watch_parent(_stop_and_save)
    return Ranks(rank, size, int(os.environ.get("LOCAL_RANK", rank)), store)


def _weighted(parameter: nn.Parameter, weight: float) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.detach().flatten() * weight


def _watch_parent(before: Callable[[], None]) -> None:
    """End this process soon after its parent: whoever starts the run again needs the folders that it keeps."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_S)
        before()
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def _stop_and_save() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
