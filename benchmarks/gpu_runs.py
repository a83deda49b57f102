"""Parts of gpu.py that train and score as the program does: memory, idle time, poses a second, resume, precisions."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import ROOT, Row
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_steps import answered
from benchmarks.measuring import device_work
from benchmarks.screening import receptor_and_ligands, write_poses
from src.checkpoint import INTERRUPTED, load_checkpoint
from src.data.batching import collate
from src.data.dataset import Example
from src.gaussian_process.joined_model import Judge
from src.graph import Batch
from src.hardware.device import tf32_products
from src.hardware.inference import predict_batches
from src.hardware.memory_plan import (
    CUDA_CONTEXT_BYTES,
    batch_need,
    largest_batch,
    plan_memory,
    propose,
    usable_of_card,
)
from src.hardware.out_of_memory import free_memory, num_edges
from src.hardware.step_memory import phase_peaks
from src.model import build_model
from src.optimization.gradients import WindowGradient
from src.run.trainer_setup import resume
from src.scoring.ensemble import Ensemble, find_checkpoints, load_ensemble
from src.scoring.poses import iter_poses
from src.scoring.screening import ScreeningOptions, screen
from src.training import Trainer

CARD_GIB = 6
PROFILED = 8  # windows, of some 20,000 events each
SAME_GRADIENT = 1e-4  # relative, Euclidean: of sums in another order
SHORT = {"num_complexes": 40, "batch_size": 4}  # of a training whose end is of interest, and not its time
PRECISIONS = ("fp32", "bf16", "fp16", "tf32")


def memory(bench: Bench) -> Iterator[Row]:
    """Peaks of the worst batches that the plan proposes, against what it says of them."""
    settings = bench.settings("plan", batch_size="auto", dropout_rate=0.0)
    examples = bench.examples(4 * max(bench.sizes.batch_sizes))
    plan = plan_memory(settings, examples, bench.device)
    chosen = propose(plan)
    yield {"mode": "proposed", "complexes": chosen.batch_size, "accumulated": chosen.gradient_accumulation_steps}
    for mode, need in plan.memory.items():
        for size in sorted({*bench.sizes.batch_sizes, chosen.batch_size}):
            planned = batch_need(need, plan.sizes, size, worst=True)
            batch = collate(_worst(need.need(plan.sizes), examples, size))
            yield answered(
                {"mode": mode, "complexes": size, "planned GB": planned / 1e9},
                partial(_against_plan, bench, mode, batch, planned, need.weights),
            )


def full_memory(bench: Bench) -> Iterator[Row]:
    """What fits a small GPU by the plan does; four times as much is split, with the same gradient and a warning."""
    settings = bench.settings("full", dropout_rate=0.0, precision="fp32")
    draw = np.random.default_rng(0)
    examples = bench.examples(4 * max(bench.sizes.batch_sizes))
    plan = plan_memory(settings, examples, bench.device)
    for mode, need in plan.memory.items():
        if bench.is_gpu:
            usable = min(usable_of_card(CARD_GIB * 2**30), plan.available or math.inf)
            size = max(1, largest_batch(need, plan.sizes, usable, plan.budget))
        else:
            size = bench.sizes.window
        drawn = [[examples[number] for number in draw.integers(len(examples), size=size)] for _ in range(3)]
        quarters = [_worst(need.need(plan.sizes), examples, size), *drawn]
        yield from _in_small_memory(bench, mode, {"mode": mode, "complexes": size}, quarters)


def epoch(bench: Bench) -> Iterator[Row]:
    """Seconds of an epoch of the program's own loop, validation apart, and the share in which the GPU has no work."""
    for form in bench.forms:
        if form not in ("plain", "lean"):
            yield answered({"form": form}, partial(_timed_epochs, bench, form))


def screening(bench: Bench) -> Iterator[Row]:
    """Poses a second with one of the shipped models, and whether a GPU scores them as the CPU does."""
    path = find_checkpoints([ROOT / "checkpoints" / "pretrained"])[0]
    protein, ligands = receptor_and_ligands(bench.folder)
    poses = write_poses(bench.folder / "poses.sdf", ligands, bench.sizes.num_poses)
    few = write_poses(bench.folder / "few.sdf", ligands, 8)
    ensemble = load_ensemble([path], bench.device.type)
    for workers in (None, 0):
        about: Row = {"what": "read, built and scored", "processes": "one a core" if workers is None else "this one"}
        yield answered(about, partial(_screened, ensemble, protein, poses, workers))
    yield answered({"what": "the network alone, on batches of 64"}, partial(_network_alone, bench, ensemble))
    if bench.is_gpu:
        yield answered({"what": "scores against those of the CPU"}, partial(_score_difference, path, protein, few))


def resume_of_runs(bench: Bench) -> Iterator[Row]:
    """A run that was stopped in its second epoch and goes on from its file, against two that were not stopped."""
    for form in bench.forms:
        if "compiled" in form or form == "plain":
            continue
        for precision in PRECISIONS[: 2 if bench.is_gpu else 1]:
            about: Row = {"form": form, "precision": precision}
            yield answered(about, partial(_stopped_and_not, bench, form, precision))


def low_precision(bench: Bench) -> Iterator[Row]:
    """Whether a short training gets anywhere, in each precision."""

    def train(precision: str, form: str) -> Row:
        trainer, loaders = bench.trainer(
            f"low-{precision}-{form}", form, precision=precision, epochs=bench.sizes.epochs, **SHORT
        )
        with tf32_products(precision, bench.device):
            trainer.fit(*loaders)
        errors = [row["train_rmse"] for row in trainer.progress.history]
        found: Row = {"RMSE of the first epoch": errors[0], "of the last": errors[-1], "holds": errors[-1] < errors[0]}
        return found | {"overflows": trainer.progress.num_overflows, "skipped": trainer.progress.num_skipped}

    for form in [form for form in bench.forms if form.startswith("fast")]:
        for precision in PRECISIONS[: 4 if bench.is_gpu else 3]:
            if precision == "fp32" or "compiled" not in form:
                yield answered({"form": form, "precision": precision}, partial(train, precision, form))


def _worst(needs: np.ndarray, examples: Sequence[Example], size: int) -> list[Example]:
    """The complexes that need most, some of them several times where there are not so many."""
    order = np.argsort(-needs, kind="stable")
    return [examples[order[number % len(order)]] for number in range(size)]


def _against_plan(bench: Bench, mode: str, batch: Batch, planned: float, fixed: float) -> Row:
    peak, reserved = _peak_of_steps(bench, mode, batch, fixed)
    row: Row = {"measured GB": peak / 1e9, "measured / planned": peak / planned}
    return row | ({"reserved / planned": reserved / planned} if reserved else {})


def _peak_of_steps(bench: Bench, mode: str, batch: Batch, fixed: float) -> tuple[float, float]:
    """Most bytes allocated, and reserved, in two steps of the loop; without a GPU those of a pass, and none."""
    if not bench.is_gpu:
        model = build_model(bench.model_settings()).train()
        model.representation.message_passing = mode
        model(batch).square().sum().backward()
        return fixed + phase_peaks(model, batch, bench.device, torch.float32).max(), 0.0
    free_memory(bench.device)
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    trainer = bench.trainer("peak", num_complexes=20, dropout_rate=0.0)[0]
    trainer.model.representation.message_passing = mode
    for _ in range(2):
        trainer._train_window([batch])
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    if trainer.progress.edge_limit is not None:
        raise torch.OutOfMemoryError("the batch did not fit and was split")
    return peaks[0] - before[0], peaks[1] - before[1]


def _in_small_memory(bench: Bench, mode: str, about: Row, quarters: Sequence[Sequence[Example]]) -> Iterator[Row]:
    torch.manual_seed(0)
    model = build_model(bench.model_settings()).to(bench.device).train()
    model.representation.message_passing = mode
    parts = [collate(part) for part in quarters]
    largest = max(parts, key=num_edges)

    def gradient(window: Sequence[Batch]) -> tuple[Tensor, int | None, list[str]]:
        model.zero_grad(set_to_none=True)
        scaler = torch.amp.GradScaler(bench.device.type, enabled=False)
        runner = WindowGradient(model, scaler, device=bench.device, precision=torch.float32)
        with _warnings() as heard:
            runner.accumulate(window)
        used = torch.cat([each.grad.flatten().float().cpu() for each in model.parameters()])
        assert runner.num_used == sum(part.num_graphs for part in window), "complexes were left out"
        return used, runner.edge_limit, heard

    def fits() -> Row:
        limits = [gradient([part])[1] for part in parts]  # unlike batches, one after the other
        reserved = torch.cuda.max_memory_reserved() / 1e9 if bench.is_gpu else None
        return {"what": "fits by the plan", "reserved GB": reserved, "holds": limits == [None] * 4}

    def splits() -> Row:
        expected = gradient(parts)[0]
        whole = collate([example for part in quarters for example in part])
        found, limit, heard = gradient([whole])
        difference = float((found - expected).norm() / expected.norm())
        told = any("the memory is full" in line for line in heard)
        holds = limit is not None and told and difference <= SAME_GRADIENT
        return {"what": "four times as much is split", "difference": difference, "told": told, "holds": holds}

    with _small_memory(bench, model, num_edges(largest)) as limit:
        for what in (fits, splits):
            yield answered(about | {"limit GB": limit}, what)
    free_memory(bench.device)


@contextlib.contextmanager
def _small_memory(bench: Bench, model: torch.nn.Module, most_edges: int) -> Iterator[float | None]:
    """Room for this process as on a GPU of CARD_GIB, in GB; without a GPU a forward pass says that memory is full."""
    if not bench.is_gpu:

        def refuse(_module: object, inputs: tuple[Batch, ...]) -> None:
            if num_edges(inputs[0]) > most_edges:
                raise torch.OutOfMemoryError("out of memory, as the benchmark pretends")

        with model.register_forward_pre_hook(refuse):
            yield None
        return
    free_memory(bench.device)
    total = torch.cuda.get_device_properties(bench.device).total_memory
    room = min(total, CARD_GIB * 2**30 - CUDA_CONTEXT_BYTES)
    torch.cuda.set_per_process_memory_fraction(room / total)
    torch.cuda.reset_peak_memory_stats()
    try:
        if room < total and not _is_limited(room):
            raise RuntimeError("torch takes more than set_per_process_memory_fraction allows, so nothing can be tried")
        yield room / 1e9
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        free_memory(bench.device)


def _is_limited(room: float) -> bool:
    try:
        torch.empty(int(1.1 * room), dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        return True
    return False


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the program warns of meanwhile."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())
    logger = logging.getLogger("src")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


def _timed_epochs(bench: Bench, form: str) -> Row:
    """An epoch to warm up, one by the clock, and one under the profiler, beside which the clock goes slower."""
    trainer, (batches, validation) = bench.trainer(f"epoch-{form}", form, epochs=2)
    seconds: list[float] = []

    def timed(number: int, first: int) -> Iterator[Batch]:
        bench.wait()
        began = time.monotonic()
        yield from batches(number, first)
        bench.wait()
        seconds.append(time.monotonic() - began)

    trainer.fit(timed, validation)
    precision, count = str(trainer.precision).removeprefix("torch."), len(trainer.facts["split"]["train"])
    row: Row = {"complexes": count, "precision": precision, "s an epoch": seconds[1], "complexes/s": count / seconds[1]}
    if bench.is_gpu:
        shown = min(PROFILED, trainer.num_batches[1])
        busy = device_work(lambda: [trainer._train_window([batch]) for batch in islice(batches(2, 0), shown)]).busy
        row["GPU idle"] = max(0.0, 1 - busy / shown * trainer.num_batches[1] / seconds[1])
    return row


def _screened(ensemble: Ensemble, protein: Path, poses: Path, workers: int | None) -> Row:
    """From the first of some batches of rows to the last, so that the start of processes does not count."""
    began, times, scored = time.monotonic(), [], 0
    for _, prediction in screen(ensemble, iter_poses(protein, [poses]), ScreeningOptions(num_workers=workers)):
        times.append(time.monotonic())
        scored += prediction.pk is not None
    skipped = len(times) // 4
    rate = (len(times) - skipped - 1) / max(times[-1] - times[skipped], 1e-9)
    return {"poses": len(times), "scored": scored, "poses/s": rate, "seconds in all": times[-1] - began}


def _network_alone(bench: Bench, ensemble: Ensemble) -> Row:
    batches = [collate(bench.examples(64 if bench.is_gpu else 8))] * 3
    judge = Judge(ensemble.models[0])
    predict_batches(judge, batches[:1], bench.device)
    bench.wait()
    began = time.monotonic()
    predict_batches(judge, batches, bench.device)
    return {"poses/s": sum(batch.num_graphs for batch in batches) / (time.monotonic() - began)}


def _score_difference(path: Path, protein: Path, poses: Path) -> Row:
    scores = []
    for device in ("cuda", "cpu"):
        rows = screen(load_ensemble([path], device), iter_poses(protein, [poses]), ScreeningOptions(num_workers=0))
        scores.append([prediction.pk for _, prediction in rows])
    difference = float(np.abs(np.subtract(*scores)).max())
    return {"poses": len(scores[0]), "largest difference, pK": difference, "holds": difference < 1e-3}


def _stopped_and_not(bench: Bench, form: str, precision: str) -> Row:
    name = f"resume-{form}-{precision}"
    changes = {"precision": precision, "epochs": 2, **SHORT}

    def new(number: int) -> tuple[Trainer, tuple]:
        return bench.trainer(f"{name}-{number}", form, **changes)

    ends = []
    for number in range(2):
        trainer, loaders = new(number)
        trainer.fit(*loaders)
        ends.append(_weights(trainer))
    trainer, (batches, validation) = new(2)
    trainer.fit(partial(_stop_at, batches, 1, 1), validation)
    file = Path(trainer.output.checkpoint_dir) / INTERRUPTED
    again, loaders = new(2)
    resume(again, file, load_checkpoint(file))
    epoch, batch = again.progress.epoch, again.progress.next_batch
    again.fit(*loaders)
    same, other = ends
    resumed = _weights(again)
    noise, difference = (float((one - same).norm() / same.norm()) for one in (other, resumed))
    # Where sums have no fixed order, two runs differ, and what a resumed one differs by must be of that size.
    is_fixed = torch.equal(same, other)
    holds = torch.equal(same, resumed) if is_fixed else difference <= 10 * noise
    row: Row = {"stopped at": f"epoch {epoch + 1}, batch {batch + 1}", "equal bits of two runs": is_fixed}
    return row | {"difference of two runs": noise, "of the resumed": difference, "holds": holds}


def _stop_at(batches: Callable[[int, int], Iterable[Batch]], epoch: int, place: int, *at: int) -> Iterator[Batch]:
    """The batches of an epoch, with one Ctrl+C before one of them."""
    for number, batch in enumerate(batches(*at)):
        if (at[0], number) == (epoch, place):
            signal.raise_signal(signal.SIGINT)
        yield batch


def _weights(trainer: Trainer) -> Tensor:
    return torch.cat([parameter.detach().flatten().cpu() for parameter in trainer.model.parameters()])
