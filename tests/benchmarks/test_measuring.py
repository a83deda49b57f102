"""What torch's profiler says of a GPU, and the median of turns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.measuring import DeviceWork, median_seconds, work_of


def event(name: str, device: str = "CUDA", start: int = 0, length: int = 0, annotation: bool = False) -> object:
    return SimpleNamespace(
        name=lambda: name,
        device_type=lambda: SimpleNamespace(name=device),
        start_ns=lambda: start,
        duration_ns=lambda: length,
        is_user_annotation=lambda: annotation,
    )


def test_work_of_a_gpu_is_counted_and_its_spans_are_joined() -> None:
    events = [
        event("gemm", start=0, length=10),
        event("add", start=5, length=10),  # beside it, up to 15
        event("Memcpy HtoD (Pinned -> Device)", start=20, length=5),
        event("a name on the host", start=0, length=1000, annotation=True),
        event("Optimizer.step#Adam.step", start=0, length=1000),
        event("cudaLaunchKernel", "CPU"),
        event("cuLaunchKernelEx", "CPU"),
        event("cudaStreamSynchronize", "CPU"),
        event("cudaDeviceSynchronize", "CPU"),  # that of the profiler
        event("aten::add", "CPU"),
    ]
    assert work_of(events) == DeviceWork(kernels=2, launches=2, copies=1, waits=1, busy=pytest.approx(20e-9))


def test_roads_take_turns_and_wait_for_the_device() -> None:
    acts: list[str] = []
    roads = {name: lambda name=name: acts.append(name) for name in "ab"}
    seconds = median_seconds(roads, most_repeats=3, most_seconds=60.0, wait=lambda: acts.append("wait"))
    assert "".join(acts).replace("wait", "|") == "|a||b|" * 3
    assert seconds.keys() == roads.keys()


def test_three_turns_are_taken_at_least() -> None:
    acts: list[str] = []
    median_seconds({"a": lambda: acts.append("a")}, most_repeats=50, most_seconds=0.0, wait=lambda: None)
    assert acts == ["a"] * 3
