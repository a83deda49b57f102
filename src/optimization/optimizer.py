"""TrainingSettings -> optimizer, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from src.settings import TrainingSettings

FINAL_LEARNING_RATE = 0.01  # fraction of learning_rate at the end of the cosine


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    # eps=1e-7 keeps the step bounded where second moments underflow.
    return kind(model.parameters(), lr=settings.learning_rate, eps=1e-7, weight_decay=settings.weight_decay)


def make_scheduler(
    optimizer: torch.optim.Optimizer, settings: TrainingSettings, *, num_steps: Sequence[int]
) -> LambdaLR | ReduceLROnPlateau:
    """'plateau' moves once an epoch on the validation RMSE; 'cosine' moves with every optimizer step.

    Args:
        num_steps: optimizer steps in each epoch.
    """
    if settings.scheduler == "plateau":
        return ReduceLROnPlateau(optimizer, factor=settings.plateau_factor, patience=settings.plateau_patience)
    total = sum(num_steps)
    warmup = settings.warmup_epochs * total / len(num_steps)  # it may be a fraction of an epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        way = min(1.0, (step - warmup) / max(1.0, total - warmup))
        return FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * 0.5 * (1 + math.cos(math.pi * way))

    return LambdaLR(optimizer, factor)


class WeightAverage:
    """Exponential moving average of a model's weights: average <- decay * average + (1 - decay) * weights.

    With decay 0 there is no average and the trained weights are used as they are.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights: dict[str, Tensor] = _copy(model)

    def update(self, model: nn.Module, step: int) -> None:
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))  # a short memory at first forgets the random start
        values = model.state_dict()
        torch._foreach_lerp_([self.weights[name] for name in values], [*values.values()], 1 - decay)

    @contextlib.contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model with the averaged weights; the trained ones come back at the end."""
        if not self.decay:
            yield model
            return
        trained = _copy(model)
        model.load_state_dict(self.weights)
        try:
            yield model
        finally:
            model.load_state_dict(trained)

    def state_dict(self) -> dict[str, Tensor] | None:
        return self.weights if self.decay else None

    def load_state_dict(self, weights: dict[str, Tensor] | None) -> None:
        for name, value in (weights or {}).items():
            self.weights[name].copy_(value)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
