"""Parts of gpu.py that train and score as the program does: idle time, poses a second, resume, precisions."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
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
from src.gaussian_process.joined_model import Judge
from src.graph import Batch
from src.hardware.device import matrix_products
from src.hardware.inference import predict_batches
from src.run.trainer_setup import choose_kernels, resume
from src.scoring.ensemble import Ensemble, find_checkpoints, load_ensemble
from src.scoring.poses import iter_poses
from src.scoring.screening import ScreeningOptions, screen
from src.training import Trainer

PROFILED = 8  # windows, of some 20,000 events each
SHORT = {"num_complexes": 40, "batch_size": 4}  # of a training whose end is of interest, and not its time
PRECISIONS = ("fp32", "bf16", "fp16", "tf32")


def epoch(bench: Bench) -> Iterator[Row]:
    """Seconds of an epoch of the program's own loop, validation apart, and the share in which the GPU has no work."""
    if bench.is_gpu:
        yield answered({"form": "auto"}, partial(_timed_epochs, bench, "auto"))
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
        with matrix_products(precision, bench.device):
            trainer.fit(*loaders)
        errors = [row["train_rmse"] for row in trainer.progress.history]
        found: Row = {"RMSE of the first epoch": errors[0], "of the last": errors[-1], "holds": errors[-1] < errors[0]}
        return found | {"overflows": trainer.progress.num_overflows, "skipped": trainer.progress.num_skipped}

    for form in [form for form in bench.forms if form.startswith("fast")]:
        for precision in PRECISIONS[: 4 if bench.is_gpu else 3]:
            if precision == "fp32" or "compiled" not in form:
                yield answered({"form": form, "precision": precision}, partial(train, precision, form))


def _timed_epochs(bench: Bench, form: str) -> Row:
    """An epoch to warm up, one by the clock, and one under the profiler, beside which the clock goes slower."""
    trainer, (batches, validation) = bench.trainer(f"epoch-{form}", "fast" if form == "auto" else form, epochs=2)
    if form == "auto":
        choose_kernels(trainer, bench.dataset.subset(trainer.facts["split"]["train"]), None)
    seconds: list[float] = []

    def timed(number: int, first: int) -> Iterator[Batch]:
        bench.wait()
        began = time.monotonic()
        yield from batches(number, first)
        bench.wait()
        seconds.append(time.monotonic() - began)

    trainer.fit(timed, validation)
    precision, count = str(trainer.precision).removeprefix("torch."), len(trainer.facts["split"]["train"])
    row: Row = {"chosen": trainer.facts["kernels"]} if form == "auto" else {}
    row |= {"complexes": count, "precision": precision, "s an epoch": seconds[1], "complexes/s": count / seconds[1]}
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
