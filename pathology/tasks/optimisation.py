"""How weights are trained: optimiser, schedule, layers that learn slower or not at all.

Optimisers and schedules are timm's, by its names. Steps are optimiser steps: with gradients
accumulated over several batches there is one step for all of them.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from timm.models import group_parameters
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

Schedule = Literal["cosine", "step", "wsd", "constant"]


def check_optimizer(name: str) -> None:
    """Refuse what is no optimiser.

    Raises:
        ValueError: timm has none of this name (it says which is nearest), or it needs second
            derivatives.
    """
    names = list_optimizers()
    if name.lower() not in names:
        near = difflib.get_close_matches(name.lower(), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"optimizer {name!r} is none of timm's{hint}")
    if get_optimizer_info(name.lower()).second_order:
        raise ValueError(f"optimizer {name!r} needs second derivatives, which are not computed")


def check_schedule(name: str) -> None:
    """Refuse what is no schedule.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in get_args(Schedule):
        raise ValueError(f"schedule must be one of {', '.join(get_args(Schedule))}; got {name!r}")


def make_optimizer(
    model: nn.Module,
    name: str,
    lr: float,
    weight_decay: float = 0.0,
    layer_decay: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> torch.optim.Optimizer:
    """An optimiser of what may be trained; frozen parameters are left out, and take no memory.

    Weight decay spares vectors (scales of norms, biases) and what the model names in
    ``no_weight_decay()``.

    Args:
        model: whose parameters with ``requires_grad`` are trained.
        name: timm's.
        lr: highest learning rate, of the head when there is a layer decay.
        weight_decay: as the optimiser takes it.
        layer_decay: factor from each group of layers to the one below it, the head having 1. Groups
            are those of the model's ``group_matcher``, as in timm.
        options: further arguments of the optimiser, e.g. ``{"betas": [0.9, 0.98]}``.

    Raises:
        ValueError: an argument that the optimiser does not have; no layers to tell apart; nothing
            to train.
    """
    spare: Any = getattr(model, "no_weight_decay", set)
    if layer_decay is None:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=spare())
    elif not hasattr(model, "group_matcher"):
        raise ValueError(
            f"layer_decay needs a model that tells its layers apart (group_matcher);"
            f" {type(model).__name__} does not"
        )
    else:
        groups = param_groups_layer_decay(
            model, weight_decay, no_weight_decay_list=spare(), layer_decay=layer_decay
        )
    if not groups:
        raise ValueError("every parameter is frozen: there is nothing to train")
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            groups, name.lower(), lr=lr, weight_decay=weight_decay, **(options or {})
        )
    except TypeError as error:
        raise ValueError(f"optimizer_args {options} do not suit {name}: {error}") from error
    return optimizer


@dataclass(frozen=True, slots=True)
class Course:
    """What the learning rate does over a training, in steps.

    Args:
        schedule: ``cosine`` falls to ``min_lr``; ``step`` multiplies by ``decay_rate`` every
            ``decay`` steps; ``wsd`` stays, then falls to ``min_lr`` as 1 - sqrt over the last
            ``decay`` steps; ``constant`` stays.
        total: steps of the training.
        warmup: of which the first so many rise linearly; the schedule has the others.
        warmup_from: share of the highest rate that they rise from.
        min_lr: lowest rate of ``cosine`` and ``wsd``.
        decay: see ``schedule``.
        decay_rate: see ``schedule``.
    """

    schedule: Schedule
    total: int
    warmup: int
    warmup_from: float
    min_lr: float
    decay: int
    decay_rate: float

    def of(self, optimizer: torch.optim.Optimizer) -> Scheduler:
        """A scheduler of timm, set to the first step; ``step_update(n)`` sets it to step n."""
        if self.schedule == "wsd" and self.decay > self.total - self.warmup:
            raise ValueError(
                f"the schedule wsd falls over {self.decay} steps (decay_epochs), training has only"
                f" {self.total - self.warmup} after warm-up"
            )
        lr = float(optimizer.defaults["lr"])
        scheduler, _ = create_scheduler_v2(
            optimizer,
            self.schedule,
            num_epochs=max(1, self.total - self.warmup),
            warmup_epochs=self.warmup,
            warmup_lr=self.warmup_from * lr,
            warmup_prefix=True,
            min_lr=self.min_lr,
            decay_epochs=self.decay,
            decay_rate=self.decay_rate,
            step_on_epochs=False,
            updates_per_epoch=1,
        )
        assert scheduler is not None
        scheduler.step_update(0)
        return scheduler


def freeze_layers(model: nn.Module, what: str | int) -> None:
    """Take parameters out of training.

    Args:
        model: a timm model, or one of ours.
        what: ``"backbone"`` for everything but the head; a number of groups of layers from the
            input on (the stem is the first, see timm's ``group_matcher``); or the name of a layer,
            for everything up to it, e.g. ``"layer2"`` or ``"blocks.5"``.

    Raises:
        ValueError: the model has no such layer, or fewer groups.
    """
    if not hasattr(model, "group_matcher"):
        raise ValueError(
            "freeze needs a model that tells its layers apart (group_matcher);"
            f" {type(model).__name__} does not"
        )
    group_of: dict[str, int] = group_parameters(
        model, model.group_matcher(coarse=False), reverse=True  # type: ignore[operator]
    )  # fmt: skip
    if what == "backbone":
        head: Any = model.get_classifier()  # type: ignore[operator]
        own = {id(p) for p in head.parameters()}
        frozen = [p for p in model.parameters() if id(p) not in own]
    else:
        groups = what if isinstance(what, int) else _groups_up_to(group_of, what)
        highest = max(group_of.values())
        if not 0 < groups <= highest:
            raise ValueError(f"freeze must be 1 to {highest} groups of layers, got {what!r}")
        frozen = [p for name, p in model.named_parameters() if group_of[name] < groups]
    for parameter in frozen:
        parameter.requires_grad = False


def _groups_up_to(group_of: Mapping[str, int], layer: str) -> int:
    """How many groups there are up to a layer, itself included."""
    inside = [g for name, g in group_of.items() if name == layer or name.startswith(f"{layer}.")]
    if not inside:
        layers = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in group_of))
        near = difflib.get_close_matches(layer, layers, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"freeze names no layer of the model: {layer!r}{hint}")
    return max(inside) + 1


def rest_frozen(model: nn.Module) -> None:
    """Put parts without anything to train into eval mode: norms keep their statistics."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
