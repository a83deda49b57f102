from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from src.data.dataset import Example
from src.hardware.device import DeviceError
from src.run.trainer_setup import RunPlan, make_loaders, num_processes, train
from src.system.distributed import ALONE
from tests.complexes import small_settings
from tests.synthetic import random_complex
from tests.training_runs import assert_same


def loaders(folder: Path, num_workers: int, device: str = "cpu") -> tuple[list[Example], tuple]:
    settings = small_settings(folder, loader_num_workers=num_workers, coordinate_noise=0.1)
    examples = [Example(random_complex(seed), 6.0) for seed in range(4)]
    dataset = SimpleNamespace(subset=lambda codes: examples[:3], judged=lambda codes: examples[3:])
    return examples, make_loaders(settings, dataset, {"train": [], "validation": []}, torch.device(device))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_edges_are_made_before_worker_processes_start(tmp_path: Path, num_workers: int) -> None:
    examples, _ = loaders(tmp_path, num_workers)
    made = ["edges" in vars(example.graph) for example in examples[:3]]
    assert made == [bool(num_workers)] * 3


def test_training_sees_other_positions_in_each_epoch_and_validation_the_measured_ones(tmp_path: Path) -> None:
    examples, (train_batches, validation) = loaders(tmp_path, 0)

    def positions(epoch: int) -> dict[str, torch.Tensor]:
        seen = {}
        for batch in train_batches(epoch, 0):
            for number, code in enumerate(batch.codes):
                seen[code] = batch.pos[batch.graph_of_atom == number]
        return seen

    first, again, second = positions(0), positions(0), positions(1)
    assert set(first) == {example.graph.code for example in examples[:3]}
    for code, pos in first.items():
        assert torch.equal(pos, again[code])
        assert not torch.equal(pos, second[code])
    (batch,) = validation
    assert torch.equal(batch.pos, examples[3].graph.pos)


def test_for_a_gpu_a_thread_makes_the_batches_of_a_training(tmp_path: Path, pinned: list) -> None:
    (_, (here, _)), (_, (by_thread, _)) = loaders(tmp_path, 0), loaders(tmp_path, 0, "cuda")
    for one, other in zip(by_thread(1, 0), here(1, 0), strict=True):
        assert_same(vars(one), vars(other))
    assert {name for name, _ in pinned} == {"made-ahead_0"}


@pytest.mark.parametrize(
    ("changes", "num_examples", "device", "earlier", "expected"),
    [
        ({}, 16, "cpu", None, 1),  # too few to start others for
        ({}, 1000, "cpu", None, 4),
        ({}, 1000, "cuda", None, 1),
        ({"batch_size": 3}, 1000, "cpu", None, 3),
        ({"cpu_processes": 2}, 16, "cpu", None, 2),
        ({"cpu_processes": 1}, 1000, "cpu", None, 1),
        ({}, 1000, "cpu", 2, 2),  # as many as the checkpoint had
        ({}, 16, "cpu", 9, 4),  # but no more than there are cores
        ({"cpu_processes": 3}, 1000, "cpu", 2, 3),
    ],
)
def test_the_number_of_processes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict,
    num_examples: int,
    device: str,
    earlier: int | None,
    expected: int,
) -> None:
    monkeypatch.setattr("src.run.trainer_setup.usable_cores", lambda: 4)
    settings = small_settings(tmp_path, **changes)
    state = earlier and {"progress": {"epoch": 1}, "processes": earlier}
    assert num_processes(settings, num_examples, torch.device(device), state) == expected
    done = {"progress": {"epoch": settings.training.epochs}, "processes": 4}
    assert num_processes(settings, num_examples, torch.device(device), done) == 1


def test_processes_on_unlike_devices_do_not_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ALONE, "gather", lambda value: [value, "cuda"], raising=False)
    plan = RunPlan(small_settings(tmp_path), SimpleNamespace(codes={}), False, None, (), False)
    with pytest.raises(DeviceError, match="unlike devices, cpu, cuda"):
        train(plan, SimpleNamespace(), ALONE)
