"""The bytes of a training step: what a few warm-up steps predict against what larger steps take."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from src.checkpoint import rng_state
from src.data.batching import collate
from src.data.dataset import Example
from src.hardware import step_memory
from src.hardware.out_of_memory import TooLargeError
from src.hardware.step_memory import (
    WEIGHT_COPIES,
    StepMemory,
    complex_sizes,
    measure_step_memory,
    model_to_measure,
    phase_peaks,
)
from src.optimization.gradients import WindowGradient
from src.optimization.optimizer import WeightAverage, make_optimizer
from src.visnet.chunked_kernels import EAGER
from tests.synthetic import random_complex, tiny_settings

CPU = torch.device("cpu")
EXAMPLES = [Example(random_complex(n, 10 + 2 * (n % 5), 40 + 7 * (n % 4)), 6.0) for n in range(8)]


@pytest.fixture
def few_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small warm-up steps, where the bytes do not matter."""
    monkeypatch.setattr(step_memory, "CALIBRATION_EDGES", 500)
    monkeypatch.setattr(step_memory, "CALIBRATION_CHUNKS", 0)


def predicted_over_measured(settings, mode: str, batch: list[Example], precision=torch.float32, examples=EXAMPLES):
    memory = measure_step_memory(settings, examples, [mode], CPU, precision)[mode]
    model = model_to_measure(settings, CPU)
    model.representation.message_passing = mode
    measured = memory.weights + phase_peaks(model, collate(batch), CPU, precision).max()
    return memory.need(complex_sizes(batch).sum(0)) / measured


@pytest.mark.parametrize("mode", ["plain", "keep", "fast", "lean"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"lmax": 2, "num_layers": 2, "hidden_channels": 32},
        {"hidden_channels": 64, "num_layers": 3, "vector_norm": "max_min", "dropout": 0.1},
    ],
    ids=["16 channels", "lmax 2", "64 channels"],
)
def test_prediction_holds_for_larger_batches(changes: dict, mode: str) -> None:
    largest = sorted(EXAMPLES, key=lambda example: example.graph.num_edges)[-3:]
    assert predicted_over_measured(tiny_settings(**changes), mode, largest * 24) == pytest.approx(1, abs=0.15)


def test_prediction_holds_for_one_complex() -> None:
    assert predicted_over_measured(tiny_settings(), "fast", EXAMPLES[:1]) == pytest.approx(1, abs=0.15)


def test_prediction_holds_in_half_precision() -> None:
    ratio = predicted_over_measured(tiny_settings(), "fast", EXAMPLES * 6, torch.bfloat16)
    assert ratio == pytest.approx(1, abs=0.15)


def test_prediction_holds_for_another_mix_of_atoms_and_edges() -> None:
    """Fewer contacts and near pairs than in any complex that was measured."""
    sparse = [
        Example(
            dataclasses.replace(e.graph, contacts=e.graph.contacts[:, ::3], near_pairs=e.graph.near_pairs[:, ::4]), 6
        )
        for e in EXAMPLES
    ]
    assert predicted_over_measured(tiny_settings(), "fast", sparse * 12) == pytest.approx(1, abs=0.15)


def test_complexes_without_near_pairs_are_planned_by_the_expected_ratio() -> None:
    bare = [
        Example(dataclasses.replace(e.graph, near_pairs=e.graph.near_pairs[:, :0], contacts=e.graph.contacts[:, :1]), 6)
        for e in EXAMPLES
    ]
    assert predicted_over_measured(tiny_settings(), "fast", bare * 24, examples=bare) == pytest.approx(1, abs=0.15)


def test_the_weights_count_as_often_as_training_keeps_them(few_edges: None) -> None:
    """Weights, gradients, two moments and the average, in the arrays that a step of training leaves behind."""
    settings, training = tiny_settings(), Trained()
    model = model_to_measure(settings, CPU)
    optimizer, average = make_optimizer(model, training), WeightAverage(model, 0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    WindowGradient(model, scaler, device=CPU, precision=torch.float32).accumulate([collate(EXAMPLES[:2])])
    optimizer.step()
    kept = [t for p in model.parameters() for t in (p, p.grad) if t is not None]
    kept += [t for state in optimizer.state.values() for t in state.values() if t.dim()]
    kept += list(average.weights.values())
    kept_bytes = sum(tensor.numel() * tensor.element_size() for tensor in kept)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert kept_bytes == pytest.approx(WEIGHT_COPIES * weights, rel=0.02)
    assert (
        measure_step_memory(settings, EXAMPLES, ["fast"], CPU, torch.float32)["fast"].weights == WEIGHT_COPIES * weights
    )


@dataclasses.dataclass
class Trained:
    """What make_optimizer reads."""

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


def test_calibration_draws_no_random_numbers(few_edges: None) -> None:
    before = rng_state()
    measure_step_memory(tiny_settings(dropout=0.3), EXAMPLES, ["fast", "lean"], CPU, torch.float32)
    after = rng_state()
    assert torch.equal(after["torch"], before["torch"])
    assert after["numpy"] == before["numpy"]
    assert after["python"] == before["python"]


def test_smaller_warm_up_steps_are_taken_where_the_first_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks, tried = step_memory.phase_peaks, []

    def most_four(model, batch, *rest):
        tried.append(batch.num_graphs)
        if batch.num_graphs > 4:
            raise TooLargeError("full")
        return peaks(model, batch, *rest)

    monkeypatch.setattr(step_memory, "phase_peaks", most_four)
    memory = measure_step_memory(tiny_settings(), EXAMPLES, ["fast"], CPU, torch.float32)["fast"]
    assert max(tried) > 4
    assert memory.need(complex_sizes(EXAMPLES[:1])[0]) > memory.weights


def test_not_even_one_complex_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr("src.model.AffinityModel.forward", full)
    with pytest.raises(TooLargeError, match="out of memory"):
        measure_step_memory(tiny_settings(), EXAMPLES, ["fast"], CPU, torch.float32)


def test_what_is_wrong_otherwise_is_not_taken_for_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("src.model.AffinityModel.forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        measure_step_memory(tiny_settings(), EXAMPLES, ["fast"], CPU, torch.float32)


def test_measuring_writes_nothing_to_the_terminal(capfd: pytest.CaptureFixture) -> None:
    phase_peaks(model_to_measure(tiny_settings(), CPU), collate(EXAMPLES[:1]), CPU, torch.float32)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_need_counts_by_hand() -> None:
    phases = np.array([[10.0, 1, 2, 3, 4, 5], [1000.0, 0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0, 0]])
    memory = StepMemory(weights=7, phases=phases, chunk=100)
    sizes = np.array([[200, 90, 50], [200, 150, 50], [1, 1, 1]])
    # one chunk of 90 edges; two chunks of 75; the second phase
    expected = [7 + 10 + 200 + 180 + 150 + 360, 7 + 10 + 200 + 300 + 150 + 5 * 75, 7 + 1000]
    expected = [max(value, 1007) for value in expected]
    assert memory.need(sizes).tolist() == expected


def test_sizes_of_a_complex() -> None:
    graph = EXAMPLES[0].graph
    assert complex_sizes(EXAMPLES[:1]).tolist() == [[graph.num_atoms, graph.num_edges, graph.contacts.shape[1]]]
    batch = collate(EXAMPLES[:3])
    assert complex_sizes(EXAMPLES[:3]).sum(0).tolist() == [len(batch.pos), len(batch.source), batch.contacts.shape[1]]


def test_a_gpu_has_longer_chunks() -> None:
    assert EAGER.longest_run(64, torch.device("cuda")) > EAGER.longest_run(64, CPU) > 0


def test_peaks_on_a_gpu_are_those_of_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that had 100 bytes in use; the counters are those of torch.cuda."""
    now, highest = [100], [100]

    def use(number: int) -> None:
        now[0] += number
        highest[0] = max(highest[0], now[0])

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: now[0])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: highest[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: highest.__setitem__(0, now[0]))

    def step(border) -> None:
        for changes in ([50, -20], [5], [-10, 40, -60]):
            for change in changes:
                use(change)
            if changes[0] > 0:
                border()

    assert step_memory._peaks_on_cuda(step, torch.device("cuda")).tolist() == [50, 35, 65]
