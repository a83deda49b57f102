"""Optimizer, learning-rate schedule and moving average, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from src.optimization.optimizer import (
    FINAL_LEARNING_RATE,
    WeightAverage,
    make_optimizer,
    make_scheduler,
    reserve_moments,
)
from src.settings import TrainingSettings
from tests.complexes import small_settings
from tests.training_runs import assert_same


def settings_of(tmp_path: Path, **changes: object) -> TrainingSettings:
    return small_settings(tmp_path, **changes).training


def linear(value: float = 0.0) -> nn.Linear:
    model = nn.Linear(1, 1)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_has_the_settings(tmp_path: Path, name: str, kind: type) -> None:
    settings = settings_of(tmp_path, optimizer=name, learning_rate=0.02, weight_decay=0.3)
    optimizer = make_optimizer(linear(), settings)
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.02, 0.3, 1e-7)


def test_what_is_reserved_is_what_a_first_step_would_make(tmp_path: Path) -> None:
    """Of the weights that have a gradient."""

    def state_after(*, reserved: bool) -> dict:
        model = nn.ModuleList([linear(1.0), linear(2.0)])
        optimizer = make_optimizer(model, settings_of(tmp_path))
        model[0](torch.ones(1, 1)).sum().backward()
        if reserved:
            reserve_moments(optimizer)
            assert not any(value.any() for state in optimizer.state.values() for value in state.values())
        optimizer.step()
        return optimizer.state_dict()

    assert_same(state_after(reserved=True), state_after(reserved=False))


def rates(tmp_path: Path, count: int, num_steps: Sequence[int] = (), **changes: object) -> list[float]:
    settings = settings_of(tmp_path, learning_rate=1.0, **changes)
    optimizer = make_optimizer(linear(), settings)
    scheduler = make_scheduler(optimizer, settings, num_steps=num_steps or [4] * settings.epochs)
    values = []
    for _ in range(count):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_the_cosine_by_hand(tmp_path: Path) -> None:
    # One epoch of warm-up and two of cosine, four steps each: fifths up to 1, then half a cosine down to 0.01.
    values = rates(tmp_path, 14, scheduler="cosine", warmup_epochs=1, epochs=3)
    assert values[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[8] == pytest.approx(FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * 0.5)
    assert values[12:] == pytest.approx([FINAL_LEARNING_RATE, FINAL_LEARNING_RATE])  # and stays there
    assert values[4:13] == sorted(values[4:13], reverse=True)


def test_the_cosine_without_warm_up_starts_at_the_full_rate(tmp_path: Path) -> None:
    assert rates(tmp_path, 1, scheduler="cosine", warmup_epochs=0) == [1.0]


def test_epochs_of_different_lengths_end_the_cosine_with_the_last_step(tmp_path: Path) -> None:
    values = rates(tmp_path, 10, num_steps=[2, 3, 4], scheduler="cosine", warmup_epochs=1, epochs=3)
    even = rates(tmp_path, 10, num_steps=[3, 3, 3], scheduler="cosine", warmup_epochs=1, epochs=3)
    assert values == even
    assert values[8] > FINAL_LEARNING_RATE
    assert values[9] == pytest.approx(FINAL_LEARNING_RATE)


def test_a_warm_up_longer_than_the_run_divides_by_nothing(tmp_path: Path) -> None:
    assert all(0 < rate < 1 for rate in rates(tmp_path, 8, scheduler="cosine", warmup_epochs=10, epochs=2))


def test_the_plateau_waits_and_halves(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, learning_rate=1.0, scheduler="plateau", plateau_factor=0.5, plateau_patience=1)
    optimizer = make_optimizer(linear(), settings)
    scheduler = make_scheduler(optimizer, settings, num_steps=[4] * settings.epochs)
    values = []
    for score in (1.0, 1.1, 1.1, math.inf, math.inf):
        scheduler.step(score)
        values.append(optimizer.param_groups[0]["lr"])
    assert values == [1.0, 1.0, 0.5, 0.5, 0.25]


# Moving average


def test_the_average_by_hand() -> None:
    model = linear(0.0)
    average = WeightAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 1.0)
    average.update(model, step=1000)  # 0.5 * 0 + 0.5 * 1
    average.update(model, step=1001)  # 0.5 * 0.5 + 0.5 * 1
    assert average.weights["weight"].item() == pytest.approx(0.75)
    assert average.weights["bias"].item() == 0.0


def test_the_memory_is_short_at_first() -> None:
    model = linear(0.0)
    average = WeightAverage(model, decay=0.999)
    nn.init.constant_(model.weight, 1.0)
    average.update(model, step=1)  # decay (1 + 1) / (10 + 1)
    assert average.weights["weight"].item() == pytest.approx(1 - 2 / 11)


def test_the_average_is_applied_for_a_while_and_the_model_comes_back() -> None:
    model = linear(1.0)
    average = WeightAverage(model, decay=0.9)
    nn.init.constant_(model.weight, 5.0)
    seen = []

    def validate_and_fail() -> None:
        with average.applied_to(model) as averaged:
            seen.append(averaged.weight.item())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        validate_and_fail()
    assert seen == [1.0]
    assert model.weight.item() == 5.0


def test_without_decay_there_is_no_average() -> None:
    model = linear(1.0)
    average = WeightAverage(model, decay=0.0)
    nn.init.constant_(model.weight, 5.0)
    average.update(model, step=1)
    with average.applied_to(model) as used:
        assert used.weight.item() == 5.0
    assert average.state_dict() is None
    average.load_state_dict(None)


def test_the_average_survives_a_checkpoint() -> None:
    average, other = WeightAverage(linear(1.0), decay=0.9), WeightAverage(linear(0.0), decay=0.9)
    state = {name: value.clone() for name, value in average.state_dict().items()}
    other.load_state_dict(state)
    assert torch.equal(other.weights["weight"], average.weights["weight"])
    other.update(linear(3.0), step=1)
    assert state["weight"].item() == 1.0  # what was loaded is not what is moved


def test_the_average_has_the_bits_of_weights_averaged_one_by_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 33), nn.LayerNorm(33), nn.Linear(33, 3).double())
    average, expected = WeightAverage(model, 0.98), {n: v.clone() for n, v in model.state_dict().items()}
    for step in range(1, 6):
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter)
        average.update(model, step)
        for name, value in model.state_dict().items():
            expected[name].lerp_(value, 1 - min(0.98, (1 + step) / (10 + step)))
    assert all(torch.equal(value, expected[name]) for name, value in average.weights.items())
