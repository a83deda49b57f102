"""What fits, what is proposed, and what takes the place of 'auto'; coefficients are made by hand."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from src.data.batching import NO_LIMIT, Budget, graph_sizes
from src.data.dataset import DatasetError, Example
from src.hardware import memory_plan
from src.hardware.memory_plan import (
    EFFECTIVE_BATCH,
    MemoryPlan,
    Proposal,
    batch_need,
    fastest_mode,
    largest_batch,
    plan_memory,
    plan_text,
    propose,
    resolve_auto,
    usable_memory,
    usable_of_card,
)
from src.hardware.step_memory import StepMemory
from src.settings import Settings, SettingsError
from tests.complexes import small_settings
from tests.synthetic import random_complex

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
EXAMPLES = [Example(random_complex(n, 10, 30 + 10 * n), 6.0) for n in range(4)]
NUM_EDGES = sum(example.graph.num_edges for example in EXAMPLES)
LITTLE = 1000 + 4 * NUM_EDGES  # bytes: lean fits all four complexes twice, fast not once
SIZES = np.array([[100, 1000, 50], [200, 3000, 90], [100, 2000, 60]])  # average: 2,000 edges


def per_edge(number: float, weights: float = 1000) -> StepMemory:
    """So many bytes for an edge, and nothing else grows."""
    phases = np.zeros((3, 6))
    phases[1, 2] = number
    return StepMemory(weights, phases, chunk=500)


def plan_of(available: float | None, sizes: np.ndarray = SIZES, budget: Budget = NO_LIMIT) -> MemoryPlan:
    """Fast takes 10 bytes for an edge and lean 2."""
    return MemoryPlan({"fast": per_edge(10), "lean": per_edge(2)}, sizes, budget, available)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """No warm-up steps: `per_edge` is what they give. The arguments of each calibration."""
    calls = []

    def measure_step_memory(*arguments) -> dict[str, StepMemory]:
        calls.append(arguments)
        return {mode: per_edge({"keep": 20, "fast": 10, "lean": 2}[mode]) for mode in arguments[2]}

    monkeypatch.setattr(memory_plan, "measure_step_memory", measure_step_memory)
    return calls


# Pure functions


@pytest.mark.parametrize(
    ("batch_size", "average", "worst"),
    [(1, 2000, 3000), (2, 4000, 5000), (3, 6000, 6000), (4, 8000, 9000), (6, 12000, 12000)],
)
def test_a_batch_needs_what_its_edges_need(batch_size: int, average: int, worst: int) -> None:
    memory = per_edge(10)
    assert batch_need(memory, SIZES, batch_size, worst=False) == 1000 + 10 * average
    assert batch_need(memory, SIZES, batch_size, worst=True) == 1000 + 10 * worst


@pytest.mark.parametrize(
    ("budget", "edges"),
    [(Budget(), 6000), (Budget(max_edges=4000), 4000), (Budget(max_atoms=200), 3000), (Budget(max_edges=100), 3000)],
    ids=["none", "edges", "atoms", "a complex above it"],
)
def test_a_budget_makes_the_worst_batch_smaller(budget: Budget, edges: int) -> None:
    assert batch_need(per_edge(10), SIZES, 3, worst=True, budget=budget) == pytest.approx(1000 + 10 * edges)


@pytest.mark.parametrize(("available", "largest"), [(30_999, 0), (31_000, 1), (51_000, 2), (60_999, 2), (61_000, 3)])
def test_largest_batch_is_the_last_whose_worst_case_fits(available: float, largest: int) -> None:
    assert largest_batch(per_edge(10), SIZES, available) == largest


def test_usable_is_less_than_the_memory() -> None:
    assert 4.7e9 < usable_of_card(6 * 2**30) < 5.1e9


@pytest.mark.parametrize(
    ("available", "proposal"),
    [
        (None, Proposal(8, 2, "fast")),  # unknown
        (1e9, Proposal(16, 1, "fast")),
        (200_000, Proposal(8, 2, "fast")),  # 8 complexes: 16,000 to 17,000 edges
        (95_000, Proposal(4, 4, "fast")),
        (80_000, Proposal(16, 1, "lean")),  # fast would fit 3
        (20_000, Proposal(4, 4, "lean")),
        (6_999, Proposal(1, 16, "lean")),  # the complex of 3,000 edges cannot fit and does not count
        (100, Proposal(1, 16, "lean")),  # none fits
    ],
)
def test_proposals(available: float | None, proposal: Proposal) -> None:
    assert propose(plan_of(available)) == proposal
    assert proposal.batch_size * proposal.gradient_accumulation_steps == EFFECTIVE_BATCH


@pytest.mark.parametrize(("available", "mode"), [(None, "fast"), (10**6, "keep"), (150_000, "fast"), (20_000, "lean")])
def test_keep_where_a_whole_batch_fits_or_as_many_as_in_any_mode(available: float | None, mode: str) -> None:
    memory = {"keep": per_edge(20), "fast": per_edge(10), "lean": per_edge(2)}
    assert propose(MemoryPlan(memory, SIZES, NO_LIMIT, available)).message_passing == mode


@pytest.mark.parametrize(
    ("available", "mode"), [(None, "fast"), (91_000, "fast"), (90_999, "lean"), (7_000, "lean"), (100, "lean")]
)
def test_fast_where_the_worst_batch_of_four_fits(available: float | None, mode: str) -> None:
    assert fastest_mode(plan_of(available), 4) == mode


# The device


def test_free_ram_is_a_share_of_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "MemTotal: 9000 kB\nMemAvailable:    1000 kB\n")
    assert usable_memory(CPU) == pytest.approx(0.85 * 1_024_000)


def test_ram_is_unknown_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(memory_plan.os, "sysconf", refuse)
    assert usable_memory(CPU) is None


@pytest.mark.parametrize(("free", "usable"), [(10e9, 0.85 * 10e9 - 0.4e9), (2e9, 0.85 * 3e9)], ids=["idle", "shared"])
def test_a_gpu_that_others_use_has_less(monkeypatch: pytest.MonkeyPatch, free: float, usable: float) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 1e9)
    assert usable_memory(CUDA) == pytest.approx(usable)


# In place of 'auto'


def chosen_values(settings: Settings) -> tuple:
    training = settings.training
    values = (training.batch_size, training.gradient_accumulation_steps, training.message_passing)
    keys = ("batch_size", "gradient_accumulation_steps", "message_passing")
    assert values == tuple(settings.config[key] for key in keys)  # what the checkpoint carries
    return values


def test_numbers_on_a_cpu_need_no_measurement(tmp_path: Path, measured: list) -> None:
    resolved = resolve_auto(small_settings(tmp_path), EXAMPLES, CPU)
    assert chosen_values(resolved) == (4, 1, "keep")
    assert measured == []


@pytest.mark.parametrize(("share", "mode"), [(1.01, "keep"), (0.99, "fast")])
def test_on_a_cpu_a_count_of_arrays_says_whether_to_keep(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch, share: float, mode: str
) -> None:
    settings = small_settings(tmp_path)
    edges = sum(graph_sizes(EXAMPLES)[:, 1])  # a batch of four holds all
    kept = 10 * 4 * settings.model.hidden_channels * settings.model.num_layers * edges
    monkeypatch.setattr(memory_plan, "usable_memory", lambda _: share * 4 * kept)
    assert chosen_values(resolve_auto(settings, EXAMPLES, CPU)) == (4, 1, mode)
    monkeypatch.setattr(memory_plan, "usable_memory", lambda _: None)
    assert chosen_values(resolve_auto(settings, EXAMPLES, CPU)) == (4, 1, "fast")


@pytest.mark.parametrize(
    ("available", "values"), [(1e9, (16, 1, "keep")), (LITTLE, (8, 2, "lean")), (None, (8, 2, "fast"))]
)
def test_auto_is_what_fits(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch, available: float | None, values: tuple
) -> None:
    monkeypatch.setattr(memory_plan, "usable_memory", lambda _: available)
    settings = small_settings(tmp_path, batch_size="auto", gradient_accumulation_steps=5)
    assert chosen_values(resolve_auto(settings, EXAMPLES, CPU)) == values


@pytest.mark.parametrize(("available", "mode"), [(1e9, "keep"), (LITTLE, "lean")])
def test_a_gpu_chooses_the_mode_for_a_given_batch_size(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch, available: float, mode: str
) -> None:
    monkeypatch.setattr(memory_plan, "usable_memory", lambda _: available)
    resolved = resolve_auto(small_settings(tmp_path), EXAMPLES, CUDA)
    assert chosen_values(resolved) == (4, 1, mode)


def test_a_mode_that_is_named_is_kept(tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "usable_memory", lambda _: 1e9)
    settings = small_settings(tmp_path, batch_size="auto", message_passing="lean")
    assert chosen_values(resolve_auto(settings, EXAMPLES, CPU)) == (16, 1, "lean")
    assert measured[0][2] == ("lean",)


def test_a_run_that_goes_on_takes_the_values_of_its_checkpoint(tmp_path: Path, measured: list) -> None:
    earlier = {"batch_size": 2, "gradient_accumulation_steps": 8, "message_passing": "lean", "epochs": 99}
    resolved = resolve_auto(small_settings(tmp_path, batch_size="auto"), EXAMPLES, CUDA, earlier)
    assert chosen_values(resolved) == (2, 8, "lean")
    assert resolved.training.epochs == 2
    named = small_settings(tmp_path, message_passing="fast")
    assert chosen_values(resolve_auto(named, EXAMPLES, CUDA, earlier)) == (4, 1, "fast")
    assert measured == []


def test_values_of_a_checkpoint_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"checkpoint.*batch_size = None"):
        resolve_auto(small_settings(tmp_path, batch_size="auto"), EXAMPLES, CPU, {})


def test_a_complex_that_cannot_fit_is_named_at_the_start(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    largest = EXAMPLES[-1].graph
    monkeypatch.setattr(memory_plan, "usable_memory", lambda _: 999.0 + 2 * largest.num_edges)
    resolve_auto(small_settings(tmp_path, batch_size="auto"), EXAMPLES, CPU)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "1 of 4 complexes" in warning
    assert f"{largest.code} ({largest.num_atoms} atoms, {largest.num_edges} edges" in warning
    assert EXAMPLES[0].graph.code not in warning


def test_nothing_is_named_where_all_fit(
    tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_plan, "usable_memory", lambda _: 1000.0 + 2 * EXAMPLES[-1].graph.num_edges)
    resolve_auto(small_settings(tmp_path, batch_size="auto"), EXAMPLES, CPU)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# The page


def test_the_page_says_what_the_functions_say(tmp_path: Path) -> None:
    plan = plan_of(0.5e9, sizes=SIZES * 1000)
    text = plan_text(plan, small_settings(tmp_path), CPU)
    lines = {line.split("  ")[0].strip(): line.split()[-8:] for line in text.splitlines()}
    assert "median 100,000" in text
    assert lines["batch_size 256"][-8::2] == ["5.12", "5.13", "1.02", "1.03"]
    assert lines["this device (cpu)"][-2:] == ["24", "124"]
    assert lines["24 GB GPU"][-2:] == ["1,074", "5,376"]
    assert '    "batch_size": 16,\n    "gradient_accumulation_steps": 1,\n    "message_passing": "fast",' in text
    for line in text.splitlines():
        assert line == line.rstrip()


def test_the_page_of_a_system_that_does_not_say_its_memory(tmp_path: Path) -> None:
    text = plan_text(plan_of(None), small_settings(tmp_path), CPU)
    assert "this device" not in text
    assert '"batch_size": 8' in text


def test_no_complexes_no_plan(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no usable complexes"):
        plan_memory(small_settings(tmp_path), [], CPU)


def test_a_plan_has_all_modes_and_the_limits_of_the_settings(tmp_path: Path, measured: list) -> None:
    plan = plan_memory(small_settings(tmp_path, max_edges_per_batch=77), EXAMPLES, CPU)
    assert plan.modes == ["keep", "fast", "lean"]
    assert plan.budget == Budget(None, 77)
    assert len(plan.sizes) == 4
    assert dataclasses.asdict(propose(plan)).keys() == {
        "batch_size",
        "gradient_accumulation_steps",
        "message_passing",
    }
