"""Settings, data and split -> a trainer where its run stopped, or at the beginning, and the batches it goes through."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

import numpy as np
import torch

from src.checkpoint import newest_checkpoint, seed_rng
from src.data.augmentation import Augmentation, ShownExamples
from src.data.batching import (
    batch_budget,
    batch_counts,
    collate,
    epoch_batches,
    graph_sizes,
    in_order,
    make_loader,
    warn_of_oversized,
)
from src.data.dataset import Dataset, DatasetError, Example
from src.data.prefetching import made_ahead
from src.evaluation.findings import Split, split_json
from src.graph import Batch
from src.hardware.compilation import fastest_kernels, kernels_named
from src.hardware.device import DeviceError, choose_device, matrix_products, sums_in_fixed_order
from src.hardware.memory_plan import EFFECTIVE_BATCH
from src.hardware.out_of_memory import parts_within
from src.model import build_model
from src.run.run_record import (
    RESULT_FILES,
    check_same_run,
    check_same_settings,
    lost_codes,
    run_facts,
    set_aside,
    stored_split,
)
from src.settings import Settings
from src.similarity.applicability import domain_facts
from src.system.distributed import ALONE, World
from src.system.own_ranks import usable_cores
from src.system.storage import write_json
from src.system.terminal import counted
from src.training import Trainer
from src.visnet.kernels import Kernels

log = logging.getLogger(__name__)

COUNTED_AT_ONCE = 256  # complexes whose contacts are counted together
SHORT_TRAINING = 1000  # complexes shown in all epochs; with fewer, more processes would take longer to start


@dataclass(frozen=True)
class RunPlan:
    """What the main rank has decided and every rank must know to train with it."""

    settings: Settings
    split: Split
    synthetic: bool
    newest: tuple[Path, dict] | None  # checkpoint to go on from
    lost: tuple[str, ...]  # codes that stay out of the data set
    may_compile: bool  # message_passing is 'auto'


def newest_of_run(settings: Settings, *, fresh: bool) -> tuple[Path, dict] | None:
    """The checkpoint to go on from, after a look at its settings; with `fresh` the earlier ones are moved first.

    So are those of the demo set when there is a data set of the user's: whoever tried the program means no other run.

    Raises:
        CheckpointError: none of them can be used, or they belong to a run with other settings.
    """
    folder = Path(settings.output.checkpoint_dir)
    if fresh and (moved := set_aside(folder)):
        log.info("earlier checkpoints are now in %s", moved)
    newest, results = newest_checkpoint(folder), Path(settings.output.results_dir)
    if newest and newest[1]["dataset"].get("synthetic") is True and not uses_demo(settings):
        moved, newest = set_aside(folder), None
        log.info("the earlier run was on the demo set: a new one begins, the checkpoints of that are now in %s", moved)
    if newest is None and (results / "history.csv").exists():
        log.info("results of an earlier run are now in %s", set_aside(results, RESULT_FILES))
    if newest:
        check_same_settings(settings, newest[1], newest[0])  # before hours of building graphs
    return newest


def demo_folder(settings: Settings) -> Path:
    return Path(settings.processing.processed_data_dir) / "demo_set"


def uses_demo(settings: Settings) -> bool:
    """Whether the data set is the built-in one, be it by its path."""
    path = settings.data.dataset_path
    return path is None or Path(path).resolve() == demo_folder(settings).resolve()


def data_of_run(dataset: Dataset, newest: tuple[Path, dict] | None, split: str) -> tuple[Dataset, dict | None]:
    """The data set as the run of a checkpoint began with it, and its split, None where that must be made.

    Args:
        split: the setting; what a file says may have changed.

    Raises:
        CheckpointError: as `lost_codes` and `stored_split`.
    """
    if newest is None:
        return dataset, None
    path, state = newest
    dataset = dataset.without(lost_codes(state, path))
    is_same = state["dataset"].get("fingerprint") == dataset.fingerprint()
    return dataset, stored_split(state, path) if is_same and split != "file" else None


def num_processes(settings: Settings, num_examples: int, device: torch.device, earlier: dict | None) -> int:
    """Processes that share the batches on this computer, which `cpu_processes` 'auto' stands for.

    Args:
        num_examples: of the data set.
        earlier: the checkpoint from which the run goes on; with as many processes it ends with the same bits.
    """
    training = settings.training
    if device.type != "cpu" or (earlier and earlier["progress"]["epoch"] >= training.epochs):
        return 1
    wanted, recorded = training.cpu_processes, (earlier or {}).get("processes")
    if wanted == "auto" and recorded:
        wanted = min(recorded, usable_cores())
    elif wanted == "auto":
        is_short = num_examples * training.epochs < SHORT_TRAINING
        wanted = 1 if is_short else usable_cores()
    return min(wanted, EFFECTIVE_BATCH if training.batch_size == "auto" else training.batch_size)


def train(plan: RunPlan, dataset: Dataset, world: World) -> tuple[Trainer, Signals | None]:
    """The part of a run that all ranks do together.

    Returns:
        The trainer, and the signal that stopped it or None.

    Raises:
        DatasetError: the ranks have unlike data sets.
        DeviceError: some have a GPU that works and others not.
    """
    settings, newest, split = plan.settings, plan.newest, dict(plan.split.codes)
    device = choose_device(settings.training.device, world.local_rank)
    kinds = world.gather(device.type)
    if len(set(kinds)) > 1:
        raise DeviceError(f"the processes have unlike devices, {', '.join(kinds)}; name one for all, as device = 'cpu'")
    trainer = make_trainer(settings, dataset, split, device, synthetic=plan.synthetic, world=world)
    found = world.gather(trainer.facts["dataset"]["fingerprint"])
    if len(set(found)) > 1:
        raise DatasetError(f"the processes read unlike data sets from {settings.data.dataset_path}: {', '.join(found)}")
    if newest:
        resume(trainer, *newest)
    with matrix_products(settings.training.precision, device):
        if plan.may_compile and not trainer.finished:
            choose_kernels(trainer, dataset.subset(split["train"]), newest[1]["kernels"] if newest else None)
        if world.is_main:
            write_json(Path(settings.output.results_dir) / "run.json", trainer.facts)
            write_json(Path(settings.output.results_dir) / "splits.json", split_json(plan.split))
        with sums_in_fixed_order(trainer.facts["kernels"] == "triton"):  # those kernels have none of their own left
            stopped_by = trainer.fit(*make_loaders(settings, dataset, split, device, world))
    world.meet()  # torchrun takes all ranks for failed when one ends while another still saves
    return trainer, stopped_by


def make_trainer(
    settings: Settings,
    dataset: Dataset,
    split: dict[str, list[str]],
    device: torch.device,
    *,
    synthetic: bool,
    world: World = ALONE,
) -> Trainer:
    """A trainer at the beginning of a run."""
    training, budget = settings.training, batch_budget(settings.training)
    seed_rng(training.seed)
    warn_of_oversized(dataset.examples, budget)
    train = dataset.subset(split["train"])
    sizes = graph_sizes(train)
    model = build_model(settings.model)
    model.representation.message_passing = training.message_passing
    judged = dataset.judged(split["train"])
    places = range(0, len(judged), COUNTED_AT_ONCE)
    model.fit_label_scale(collate(judged[n : n + COUNTED_AT_ONCE], with_edges=False) for n in places)
    facts = run_facts(
        settings,
        split,
        dataset_fingerprint=dataset.fingerprint(),
        synthetic=synthetic,
        lost=dataset.lost,
        processes=world.size,
    )
    trainer = Trainer(
        model,
        training,
        settings.output,
        device=device,
        num_batches=batch_counts(sizes, training.batch_size, budget, seed=training.seed, epochs=training.epochs),
        facts={**facts, "domain": domain_facts([e.graph for e in train], [e.pk for e in train])},
        world=world,
    )
    size = sum(parameter.numel() for parameter in model.parameters())
    precision = str(trainer.precision).removeprefix("torch.")
    of_each = f", {world.size} processes" if world.size > 1 else ""
    log.info("ViSNet with %s weights on %s in %s%s", f"{size:,}", device, precision, of_each)
    return trainer


def resume(trainer: Trainer, path: Path, state: dict) -> None:
    """Put a trainer where the run of a checkpoint stopped.

    Raises:
        CheckpointError: it is another run, of other data for example.
    """
    check_same_run(trainer.facts, state, path)
    trainer.load_state_dict(state)
    progress = trainer.progress
    now = trainer.facts["config"]
    if any(state["config"][key] != now[key] for key in ("device", "message_passing")):
        progress.edge_limit = None  # batches that did not fit on another device may fit here
    if trainer.finished:
        log.info("%s: this run is finished after %s", path, counted(progress.epoch, "epoch"))
    else:
        log.info("going on from %s: epoch %d, batch %d", path, progress.epoch + 1, progress.next_batch + 1)


def choose_kernels(trainer: Trainer, train: Sequence[Example], earlier: str | None) -> None:
    """The fastest way to pass messages; a run that goes on keeps the one it had, as the digits differ."""
    if earlier == "plain":
        return
    world, representation = trainer.world, trainer.model.representation
    name, kernels = _fastest_kernels(trainer, train, earlier) if world.is_main else (None, None)
    name = world.from_main(name)
    representation.kernels = kernels or kernels_named(name, representation)
    trainer.facts["kernels"] = name


def _fastest_kernels(trainer: Trainer, train: Sequence[Example], earlier: str | None) -> tuple[str, Kernels]:
    settings, limit, sizes = trainer.settings, trainer.progress.edge_limit, graph_sizes(train)
    batches = epoch_batches(sizes, settings.batch_size, batch_budget(settings), seed=settings.seed, epoch=0)
    shares = [_share(batches[place], sizes, trainer.world) for place in (0, len(batches) // 2)]
    tried = [collate([train[number] for number in share]) for share in shares]
    return fastest_kernels(
        trainer.model,
        [parts_within(batch, limit)[0] for batch in tried],
        num_steps=sum(trainer.num_batches),
        device=trainer.device,
        precision=trainer.precision,
        earlier=earlier,
    )


def _share(batch: Sequence[int], sizes: np.ndarray, world: World) -> list[int]:
    """The members of a batch, by their numbers, that this rank takes: about as many edges as the others."""
    return [batch[place] for place in world.deal(sizes[batch, 1])]


def make_loaders(
    settings: Settings, dataset: Dataset, split: dict[str, list[str]], device: torch.device, world: World = ALONE
) -> tuple:
    """What `Trainer.fit` takes: a function of epoch and first batch, and the batches of the validation set."""
    train, training = dataset.subset(split["train"]), settings.training
    sizes, budget = graph_sizes(train), batch_budget(training)
    if training.loader_num_workers:
        for example in train:
            _ = example.graph.edges  # made here once, not by every worker of every epoch
    augmentation = Augmentation(
        training.coordinate_noise, training.decoy_fraction, settings.graph.interaction_cutoff, training.seed
    )

    def train_batches(epoch: int, first_batch: int) -> Iterable[Batch]:
        batches = epoch_batches(sizes, training.batch_size, budget, seed=training.seed, epoch=epoch)
        loader = make_loader(
            ShownExamples(train, augmentation, epoch),
            [_share(batch, sizes, world) for batch in batches[first_batch:]],
            num_workers=training.loader_num_workers,
        )
        return made_ahead(loader, device, num_ahead=training.gradient_accumulation_steps)

    return train_batches, in_order(world.every(dataset.judged(split["validation"])), training.batch_size, budget)
