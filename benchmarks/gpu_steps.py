"""Parts of gpu.py that take single steps: the same numbers as on a CPU, the same bits twice, speed, launches, waits."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.gpu import Row, first_line
from benchmarks.gpu_bench import Bench
from benchmarks.measuring import OperatorCount, device_work, median_seconds
from benchmarks.networks import (
    PYG,
    TOLERANCES,
    Network,
    our_network,
    output_weights,
    outputs_and_gradients,
    relative_errors,
)
from benchmarks.workload import make_pair
from src.data.batching import collate
from src.graph import Batch
from src.hardware.inference import predict_batches
from src.hardware.out_of_memory import free_memory, memory_fault
from src.model import ViSNet
from src.optimization.gradients import WindowGradient
from tests.synthetic import in_double, scattered

COMPILED_PYG = "PyG, compiled"
IN_DOUBLE_COMPLEXES = 2  # on the CPU, which takes a second for each
SPEED_PRECISIONS = ("fp32", "bf16")


def answered(about: Row, find: Callable[[], Row]) -> Row:
    """What was found; where something fails, that is the answer, and the others go on."""
    try:
        return about | find()
    except Exception as error:  # compilers and drivers raise errors of their own types
        return about | {"error": first_line(error)}


def equality(bench: Bench) -> Iterator[Row]:
    """Outputs and gradients on the device against the CPU in float64, within the tolerances of networks.py."""
    cases = [(1, "fp32"), (1, "bf16"), (1, "fp16"), (2, "fp32")]
    found: dict[int, tuple] = {}
    for lmax in (1, 2):
        settings = bench.model_settings(lmax=lmax)
        model, batch = scattered(ViSNet(settings)), collate(bench.examples(IN_DOUBLE_COMPLEXES))
        weights = output_weights(settings, batch)
        exact = our_network(model, "plain", "fp32")
        exact.model.double()
        expected = outputs_and_gradients(exact, in_double(batch), [weight.double() for weight in weights])
        on_device = batch.to(bench.device), [weight.to(bench.device) for weight in weights]
        found[lmax] = model.to(bench.device), on_device, expected

    def errors(form: str, lmax: int, precision: str) -> Row:
        model, on_device, expected = found[lmax]
        got = relative_errors(outputs_and_gradients(our_network(model, form, precision), *on_device), expected)
        holds = all(value <= most for value, most in zip(got, TOLERANCES[precision], strict=True))
        return {**got._asdict(), "holds": holds}

    for form in bench.forms:
        for lmax, precision in cases:
            if "compiled" in form and (lmax, precision) not in cases[:2]:
                continue  # each kind of kernel takes seconds to compile
            yield answered({"form": form, "lmax": lmax, "precision": precision}, partial(errors, form, lmax, precision))


def determinism(bench: Bench) -> Iterator[Row]:
    """Two steps on one batch from the same weights: whether their bits are equal, and else by how much they differ."""
    settings = bench.model_settings()
    model = scattered(ViSNet(settings)).to(bench.device)
    batch = collate(bench.examples(bench.sizes.window)).to(bench.device)
    weights = output_weights(settings, batch)

    def compare(form: str, precision: str) -> Row:
        network = our_network(model, form, precision)
        one, other = (_step(network, batch, weights) for _ in range(2))
        largest = max(
            float((a.double() - b.double()).abs().max() / a.double().abs().max().clamp(min=1e-30))
            for a, b in zip(one, other, strict=True)
        )
        return {"equal bits": all(map(torch.equal, one, other)), "largest difference": largest}

    for form in bench.forms:
        for precision in SPEED_PRECISIONS:
            yield answered({"form": form, "precision": precision}, partial(compare, form, precision))


def speed(bench: Bench) -> Iterator[Row]:
    """Complexes a second of each form and of PyG's network of the same size, on the same edges, taking turns."""
    yield from _speeds(bench, [PYG, *bench.forms])


def speed_of_compiled_pyg(bench: Bench) -> Iterator[Row]:
    """That takes minutes to compile, and may not end."""
    if bench.sizes.compiles:
        yield from _speeds(bench, [PYG, COMPILED_PYG, "fast"])


def launches(bench: Bench) -> Iterator[Row]:
    """Kernels, launches, waits and bytes of a forward and backward pass."""
    batch = collate(bench.examples(bench.sizes.window)).to(bench.device)
    weights = output_weights(bench.model_settings(), batch)

    def count(form: str, precision: str) -> Row:
        network = _network(bench, form, precision)
        step = partial(network.step, batch, weights)
        step()
        row: Row = {}
        if not network.is_compiled:
            with OperatorCount() as counted:
                step()
            row |= {"operators": counted.kernels, "GB moved": counted.moved / 1e9, "reads of values": counted.waits}
        return row | (_device_row(step, bench) if bench.is_gpu else {})

    for form in [PYG, *bench.forms]:
        for precision in SPEED_PRECISIONS:
            about: Row = {"form": form, "precision": precision, "complexes": batch.num_graphs}
            yield answered(about, partial(count, form, precision))


def waits(bench: Bench) -> Iterator[Row]:
    """A window of a training waits for the device once, where it reads losses and finiteness, and a scoring once."""

    def window(form: str, precision: str) -> Row:
        trainer, (train_batches, _) = bench.trainer(
            "waits", form, num_complexes=3 * bench.sizes.window, precision=precision
        )
        batches = list(islice(train_batches(0, 0), 2))
        for batch in batches:
            trainer._train_window([batch])
        reads: list[int] = []
        with patch.object(WindowGradient, "_read", _allowed(WindowGradient._read, reads)), _no_waits(bench):
            try:
                trainer._train_window(batches)
            except RuntimeError as error:
                return {"holds": False, "waits at": _place(error)}
        return {"reads": len(reads), "holds": len(reads) == 1}

    for form in [form for form in bench.forms if form != "plain"]:
        for precision in SPEED_PRECISIONS:
            about: Row = {"what": "a window of two batches", "form": form, "precision": precision}
            yield answered(about, partial(window, form, precision))
    if bench.is_gpu:
        yield answered({"what": "scoring three batches"}, partial(_scoring_waits, bench))


def _scoring_waits(bench: Bench) -> Row:
    model = bench.trainer("scoring", num_complexes=bench.sizes.window)[0].model
    batches = [collate(bench.examples(bench.sizes.window)).pin_memory()] * 3
    predict_batches(model, batches, bench.device)
    found = device_work(lambda: predict_batches(model, batches, bench.device)).waits
    return {"reads": found, "holds": found == 1}


def _speeds(bench: Bench, forms: Sequence[str]) -> Iterator[Row]:
    for precision in SPEED_PRECISIONS:
        networks = {form: _network(bench, form, precision) for form in forms}
        for size in bench.sizes.batch_sizes:
            batch = collate(bench.examples(size)).to(bench.device)
            weights = output_weights(bench.model_settings(), batch)
            yield from _speeds_on(bench, networks, batch, weights, precision)
            free_memory(bench.device)


def _speeds_on(
    bench: Bench, networks: dict[str, Network], batch: Batch, weights: Sequence[Tensor], precision: str
) -> Iterator[Row]:
    rows: dict[str, Row] = {}
    acts: dict[str, dict[str, Callable[[], object]]] = {"train": {}, "infer": {}}
    for form, network in networks.items():
        row: Row = {"form": form, "precision": precision, "complexes": batch.num_graphs}
        step, infer = partial(network.step, batch, weights), partial(network.infer, batch)
        rows[form] = answered(row, partial(_first_call, bench, step, infer))
        if "first call s" in rows[form]:
            acts["train"][form], acts["infer"][form] = step, infer
        network.model.zero_grad(set_to_none=True)
        free_memory(bench.device)
    for act, roads in acts.items():
        timing = {"most_repeats": bench.sizes.repeats, "most_seconds": bench.sizes.seconds}
        seconds = median_seconds(roads, **timing, wait=bench.wait)
        for form, median in seconds.items():
            rows[form][f"{act} /s"] = batch.num_graphs / median
            rows[form][f"{act}, times PyG"] = seconds[PYG] / median if PYG in seconds else None
        for network in networks.values():
            network.model.zero_grad(set_to_none=True)
    yield from rows.values()


def _first_call(bench: Bench, *acts: Callable[[], object]) -> Row:
    """Seconds of the first call of each act, compiling and the loading of kernels included; or that it does not fit."""
    began = perf_counter()
    for act in acts:
        if memory_fault(act):
            return {"out of memory": True}
        bench.wait()
    return {"first call s": perf_counter() - began}


def _network(bench: Bench, form: str, precision: str) -> Network:
    """One of ours as it is trained, or PyG's, as it is or compiled, with the vector norm that it has by itself."""
    if form not in (PYG, COMPILED_PYG):
        return our_network(ViSNet(bench.model_settings()).to(bench.device), form, precision)
    theirs = make_pair(bench.model_settings(vector_norm="none")).theirs.to(bench.device)
    return Network(form, theirs if form == PYG else torch.compile(theirs), precision, is_compiled=form == COMPILED_PYG)


def _device_row(step: Callable[[], object], bench: Bench) -> Row:
    wall = median_seconds({"": step}, most_repeats=5, most_seconds=2.0, wait=bench.wait)[""]
    work = device_work(step)
    counts = {"kernels": work.kernels, "launches": work.launches, "copies": work.copies, "waits": work.waits}
    return {**counts, "ms of the GPU": 1e3 * work.busy, "ms": 1e3 * wall}


def _step(network: Network, batch: Batch, weights: Sequence[Tensor]) -> list[Tensor]:
    """Outputs and gradients of one step."""
    network.model.zero_grad(set_to_none=True)
    outputs = network.forward(batch)
    torch.autograd.backward(outputs, [weight.to(out.dtype) for weight, out in zip(weights, outputs, strict=True)])
    return [*(out.detach() for out in outputs), *(each.grad.clone() for each in network.model.parameters())]


def _allowed(read: Callable[..., Any], reads: list[int]) -> Callable[..., Any]:
    """The one function that may wait for the device."""

    def counted(*arguments: Any) -> Any:
        reads.append(1)
        if not torch.cuda.is_available():
            return read(*arguments)
        torch.cuda.set_sync_debug_mode("default")
        try:
            return read(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    return counted


@contextlib.contextmanager
def _no_waits(bench: Bench) -> Iterator[None]:
    """Every wait for a GPU is an error meanwhile."""
    if bench.is_gpu:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if bench.is_gpu:
            torch.cuda.set_sync_debug_mode("default")


def _place(error: BaseException) -> str:
    """The innermost line of the program that an error came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "src" in Path(frame.filename).parts]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} " if frames else ""
    return where + first_line(error)
