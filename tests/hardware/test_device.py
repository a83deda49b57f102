"""Names of devices and precisions."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from src.hardware.device import (
    DeviceError,
    _warn_once,
    autocast,
    choose_device,
    choose_precision,
    matrix_products,
    sums_in_fixed_order,
)
from src.system.errors import UserError

CPU = torch.device("cpu")


NO_CODE = (
    "CUDA error: no kernel image is available for execution on the device\n"
    "CUDA kernel errors might be asynchronously reported at some other API call"
)
BUSY = "CUDA error: CUDA-capable device(s) is/are busy or unavailable"
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


@dataclass
class Cards:
    """What `torch.cuda` says of two cards, and the fault with which the first thing done on one of them ends."""

    fault: str | None = None
    current: torch.device | None = None
    used: list[torch.device] = field(default_factory=list)

    def put(self, _size: int, *, device: torch.device) -> Tensor:
        self.used.append(device)
        if self.fault:
            raise RuntimeError(self.fault)
        return torch.zeros(1)

    def choose(self, device: torch.device) -> None:
        self.current = device


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Cards:
    cards = Cards()
    monkeypatch.setattr(torch, "ones", cards.put)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", cards.choose)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_120"])
    return cards


def test_auto_is_a_card_that_has_done_something(cards: Cards) -> None:
    assert choose_device("auto") == torch.device("cuda")
    assert cards.used == [torch.device("cuda")]


@pytest.mark.parametrize(
    "told", ["Torch not compiled with CUDA enabled", "Found no NVIDIA driver on", "No CUDA GPUs are available"]
)
def test_auto_without_a_card_is_the_cpu_and_nothing_is_said(
    cards: Cards, caplog: pytest.LogCaptureFixture, told: str
) -> None:
    cards.fault = told
    assert choose_device("auto") == CPU
    assert not caplog.records


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            NO_CODE,
            r"no code for it, of compute capability 6\.1, but for sm_75, sm_120: install .* torch==\d\S+ .*whl/cu126",
        ),
        (BUSY, "it is busy, or another program has it for itself: end that program"),
        ("CUDA error: exclusive-thread device already in use by a different thread", "another program has it"),
        ("CUDA out of memory. Tried to allocate 2.00 MiB.", "its memory is full: end programs"),
        (OLD_DRIVER, "its driver is older than this build of torch needs: update the driver"),
        ("CUDA error: CUDA driver version is insufficient for CUDA runtime version", "its driver is older"),
        (
            "CUDA error: unspecified launch failure\nCompile with",
            "does not work: CUDA error: unspecified launch failure",
        ),
        ("CUDA error: {odd}", r"does not work: CUDA error: \{odd\}"),
    ],
)
def test_a_card_that_does_not_work_is_an_error_where_it_was_named_and_a_warning_where_not(
    cards: Cards, caplog: pytest.LogCaptureFixture, fault: str, told: str
) -> None:
    cards.fault = fault
    with pytest.raises(UserError, match=told):
        choose_device("cuda:1")
    assert cards.current is None
    _warn_once.cache_clear()
    assert [choose_device("auto") for _ in range(3)] == [CPU] * 3  # a run asks several times
    (line,) = [record.getMessage() for record in caplog.records]
    assert "going on on the CPU: device = 'cuda' does not work" in line
    assert re.search(told, line)


def test_the_card_that_was_named_becomes_that_which_torch_means(cards: Cards) -> None:
    choose_device("cuda:1")
    assert cards.current == torch.device("cuda:1")


def test_a_process_takes_the_card_of_its_number(cards: Cards) -> None:
    assert choose_device("auto", local_rank=1) == cards.current == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"cuda:2.*torch sees 2"):  # and does not train on the CPU beside the others
        choose_device("auto", local_rank=2)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "cuda:x", "mps", "tpu", "meta", "xpu"])
def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=name):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "device", "has_bf16", "expected"),
    [
        ("auto", "cpu", True, torch.float32),
        ("auto", "cuda", True, torch.bfloat16),
        ("auto", "cuda", False, torch.float16),
        ("fp32", "cuda", True, torch.float32),
        ("tf32", "cuda", True, torch.float32),
        ("bf16", "cpu", False, torch.bfloat16),
        ("fp16", "cpu", False, torch.float16),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch, name: str, device: str, has_bf16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
    assert choose_precision(name, torch.device(device)) == expected


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_computes_in_the_precision(precision: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == precision


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [("tf32", "cuda:1", True), ("fp32", "cuda", False), ("bf16", "cuda", False), ("tf32", "cpu", False)],
)
def test_tf32_is_for_products_on_a_gpu_and_ends_with_the_training(
    caplog: pytest.LogCaptureFixture, precision: str, device: str, expected: bool
) -> None:
    caplog.set_level("INFO")
    with contextlib.suppress(KeyboardInterrupt), matrix_products(precision, torch.device(device)):
        assert torch.backends.cuda.matmul.allow_tf32 == expected
        raise KeyboardInterrupt
    assert not torch.backends.cuda.matmul.allow_tf32
    assert ("same as 'fp32' on cpu" in caplog.text) == (device == "cpu")


@pytest.mark.parametrize("wanted", [True, False])
def test_sums_are_in_a_fixed_order_where_that_is_wanted_and_only_as_long(wanted: bool) -> None:
    before = torch.utils.deterministic.fill_uninitialized_memory
    with contextlib.suppress(KeyboardInterrupt), sums_in_fixed_order(wanted):
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert torch.is_deterministic_algorithms_warn_only_enabled() == wanted
        assert torch.utils.deterministic.fill_uninitialized_memory == (before and not wanted)
        raise KeyboardInterrupt
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == before


def test_a_gpu_adds_the_parts_of_long_sums_in_float32_while_it_trains() -> None:
    flags = torch.backends.cuda.matmul

    def reduced() -> list[bool]:
        return [flags.allow_bf16_reduced_precision_reduction, flags.allow_fp16_reduced_precision_reduction]

    before = reduced()
    with matrix_products("bf16", torch.device("cuda")):
        assert reduced() == [False, False]
    assert reduced() == before == [True, True]
