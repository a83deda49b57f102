"""TrainingSettings -> optimizer, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from src.settings import TrainingSettings

FUSED_ON = ("cuda",)  # kinds of devices
FINAL_LEARNING_RATE = 0.01  # fraction of learning_rate at the end of the cosine


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Adam or AdamW; on a CUDA GPU one kernel moves many weights, wherever a state that is loaded comes from."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    parameters = list(model.parameters())
    fused = parameters[0].device.type in FUSED_ON or None
    # eps=1e-7 keeps the step bounded where second moments underflow.
    options = {"eps": 1e-7, "weight_decay": settings.weight_decay, "fused": fused}
    optimizer = kind(parameters, lr=settings.learning_rate, **options)

    def in_this_form(_optimizer: torch.optim.Optimizer, state: dict) -> dict:
        return {**state, "param_groups": [{**group, "fused": fused} for group in state["param_groups"]]}

    optimizer.register_load_state_dict_pre_hook(in_this_form)
    return optimizer


def reserve_moments(optimizer: torch.optim.Optimizer) -> None:
    """Make what the optimizer remembers of each weight that it has not moved yet, as its step would.

    So memory runs out before anything has moved, if it does: torch does not count what a fused kernel writes.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter not in optimizer.state:
                step = torch.zeros((), dtype=torch.float32, device=parameter.device if group["fused"] else "cpu")
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": step, **moments}


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
