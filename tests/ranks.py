"""Several processes that train together, for tests: each calls one function with its World.

They are forks of a server that has imported what they need once, and find each other by a file.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # Adam imports it
import torch.distributed as dist
from torch import Tensor

from src.data.batching import collate, epoch_batches, graph_sizes, in_order
from src.data.dataset import Example
from src.graph import Batch
from src.model import build_model
from src.system.distributed import ALONE, Ranks, World
from src.system.own_ranks import speak_to_oneself
from src.training import Trainer
from tests.synthetic import in_double, random_complex, scattered, tiny_settings
from tests.training_runs import make_trainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.ranks"])
LIMIT_S = 60.0

# Eleven complexes of unlike sizes: batches of 4, 4 and 3, so that one of four ranks has nothing of the last.
EXAMPLES = [Example(random_complex(seed, 4 + seed % 3, 8 + seed % 5), pk=4.0 + 0.5 * seed) for seed in range(11)]
SIZES = graph_sizes(EXAMPLES)
BATCH_SIZE, BATCHES = 4, 3


@dataclass(frozen=True)
class Ended:
    """What became of a rank: what its function returned or raised, or the signal that ended it."""

    value: Any = None
    error: BaseException | None = None
    exit_code: int | None = 0


def run_ranks(size: int, folder: Path, function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Ended]:
    """Call function(world, ...) in as many processes; a function of a module's top level."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "store").unlink(missing_ok=True)
    ranks = [
        CONTEXT.Process(target=_serve, args=(rank, size, folder, function, arguments, options)) for rank in range(size)
    ]
    for process in ranks:
        process.start()
    end = time.monotonic() + LIMIT_S
    for process in ranks:
        process.join(max(0.0, end - time.monotonic()))
    late = [process for process in ranks if process.is_alive()]
    for process in late:
        process.kill()
        process.join()
    assert not late, f"{len(late)} ranks did not end"
    found = []
    for rank, process in enumerate(ranks):
        path = folder / f"rank_{rank}"
        known = pickle.loads(path.read_bytes()) if path.exists() else (None, None)
        path.unlink(missing_ok=True)
        found.append(Ended(*known, exit_code=process.exitcode))
    return found


def values(ended: list[Ended]) -> list[Any]:
    for one in ended:
        if one.error is not None:
            raise one.error
    assert [one.exit_code for one in ended] == [0] * len(ended)
    return [one.value for one in ended]


def _serve(rank: int, size: int, folder: Path, function: Callable, arguments: tuple, options: dict) -> None:
    torch.set_num_threads(1)
    speak_to_oneself()
    value = error = None
    try:
        with Ranks(rank, size, rank, dist.FileStore(str(folder / "store"), size)) as world:
            world.from_main()
            value = function(world, *arguments, **options)
    except Exception as found:
        error = found
    (folder / f"rank_{rank}").write_bytes(pickle.dumps((value, error)))


def ranked_trainer(folder: Path, world: World = ALONE, *, double: bool = False, **changes: object) -> Trainer:
    """A small ViSNet; without dropout the random numbers of a rank do not count."""
    torch.manual_seed(0)
    model = scattered(build_model(tiny_settings(num_layers=1, dropout=float(changes.pop("dropout", 0.0)))))
    model = model.double() if double else model
    values = {"batch_size": BATCH_SIZE, "warmup_epochs": 0, **changes}
    return make_trainer(folder, model=model, num_batches=BATCHES, world=world, **values)


def shares(world: World = ALONE, *, double: bool = False) -> Callable[[int, int], Iterator[Batch]]:
    """What this rank has of the batches of an epoch, from one on."""

    def batches(epoch: int, first_batch: int) -> Iterator[Batch]:
        for batch in epoch_batches(SIZES, BATCH_SIZE, seed=1, epoch=epoch)[first_batch:]:
            share = collate([EXAMPLES[batch[place]] for place in world.deal(SIZES[batch, 1])])
            yield in_double(share) if double else share

    return batches


def validation(world: World = ALONE, *, double: bool = False) -> Iterable[Batch]:
    batches = list(in_order(world.every(EXAMPLES[:5]), 2))
    return [in_double(batch) for batch in batches] if double else batches


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
