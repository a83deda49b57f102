"""Triton kernels that would be started -> their tensors and sizes, without a GPU to run them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}


class Launch(NamedTuple):
    """One start of a kernel with its arguments by name."""

    kernel: JITFunction
    arguments: dict[str, Any]
    num_warps: int

    @property
    def moved(self) -> int:
        """Bytes of the tensors that it reads and writes, each storage once."""
        tensors = [value for value in self.arguments.values() if isinstance(value, Tensor)]
        return sum({one.data_ptr(): one.numel() * one.element_size() for one in tensors}.values())

    @property
    def signature(self) -> dict[str, str]:
        """Types of the arguments, as `triton.compile` takes them."""
        runtime = {name: TYPES[one.dtype] for name, one in self.arguments.items() if isinstance(one, Tensor)}
        return {name: runtime.get(name, "i32" if name == "NUM_EDGES" else "constexpr") for name in self.arguments}

    @property
    def constants(self) -> dict[str, Any]:
        return {name: self.arguments[name] for name, kind in self.signature.items() if kind == "constexpr"}


@contextlib.contextmanager
def recorded_launches() -> Iterator[list[Launch]]:
    """Within it kernels are noted and not run: what they would write holds whatever was in memory."""
    launches: list[Launch] = []

    def note(kernel: JITFunction, *, grid: object, warmup: bool, num_warps: int, **arguments: object) -> None:
        launches.append(Launch(kernel, arguments, num_warps))

    torch.set_flush_denormal(True)  # what was in memory may be numbers that a CPU takes hundreds of cycles for
    try:
        with patch.object(JITFunction, "run", note):
            yield launches
    finally:
        torch.set_flush_denormal(False)
