"""The parts of gpu.py by their names."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata

import torch

from benchmarks import gpu_memory, gpu_runs, gpu_steps
from benchmarks.gpu import Row
from benchmarks.gpu_bench import Bench
from benchmarks.measuring import machine
from benchmarks.networks import OURS


def about_machine(bench: Bench) -> Iterator[Row]:
    yield {"what": "processor", "is": machine()}
    yield {"what": "device", "is": str(bench.device), "why": bench.why_cpu or None}
    if bench.is_gpu:
        card = torch.cuda.get_device_properties(bench.device)
        yield {"what": "card", "is": card.name}
        yield {"what": "compute capability", "is": f"{card.major}.{card.minor}"}
        free, total = torch.cuda.mem_get_info(bench.device)
        yield {"what": "memory, GB (free)", "is": f"{total / 1e9:.1f} ({free / 1e9:.1f})"}
        yield {"what": "multiprocessors", "is": card.multi_processor_count}
        yield {"what": "driver", "is": _driver()}
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        yield {"what": "bf16", "is": "by itself" if native else "emulated"}
    for name in ("torch", "triton", "torch-geometric", "rdkit", "numpy", "scipy"):
        yield {"what": name, "is": _version(name)}
    yield {"what": "Python", "is": platform.python_version()}
    yield {"what": "CUDA that torch is built for", "is": torch.version.cuda}
    yield {"what": "C compiler, for torch.compile and Triton", "is": shutil.which("gcc") or shutil.which("clang")}
    for form in OURS:
        is_tried = form in bench.forms
        why_not = "" if is_tried else bench.why_not_here(form) or "not tried here"
        row: Row = {"what": f"form {form}", "is": "tried" if is_tried else "left out", "why": why_not or None}
        yield row | ({"holds": is_tried} if bench.is_gpu else {})


def is_usable(device: torch.device) -> bool:
    """Whether the device still does what it is told: after some errors of a kernel CUDA refuses everything."""
    try:
        torch.ones(1, device=device).add_(1).cpu()
    except RuntimeError:
        return False
    return True


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "machine": about_machine,
    "equality": gpu_steps.equality,
    "determinism": gpu_steps.determinism,
    "speed": gpu_steps.speed,
    "launches": gpu_steps.launches,
    "waits": gpu_steps.waits,
    "memory": gpu_memory.memory,
    "full-memory": gpu_memory.full_memory,
    "epoch": gpu_runs.epoch,
    "screening": gpu_runs.screening,
    "resume": gpu_runs.resume_of_runs,
    "low-precision": gpu_runs.low_precision,
    "speed-of-compiled-PyG": gpu_steps.speed_of_compiled_pyg,
}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    """What nvidia-smi says, where there is one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown: no nvidia-smi"
