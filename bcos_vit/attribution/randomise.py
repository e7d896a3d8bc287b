"""A network with part or all of what it has learnt thrown away: the other side of sanity checks.

Everything learnt counts: not only weights of layers, but class tokens, position codes, layer
scales, norms with their running statistics. What is no result of training (a temperature, a logit
bias of the class frequencies, an index table) stays.

Source: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018 (arXiv:1810.03292).
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

How = Literal["initial", "shuffled"]

STATISTICS = ("running_mean", "running_var")
"""Buffers that training fills."""


def learnt_layers(model: nn.Module) -> list[str]:
    """Names of the modules that own parameters or running statistics, from input to output.

    A module's own parameters (a ViT's class token, a head's bias) are one layer by its name; the
    model's own are the layer ``""``.
    """
    return [name for name, module in model.named_modules() if _learnt(module)]


def randomise(
    model: nn.Module,
    seed: int,
    *,
    layers: Sequence[str] | None = None,
    how: How = "initial",
) -> nn.Module:
    """A copy of a model with layers randomised; the model itself stays as it is.

    Args:
        model: any network, on one device; the copy is in its mode and on its device.
        seed: a layer's new values depend on it and on the layer's name alone.
        layers: names from :func:`learnt_layers`; all when omitted.
        how: ``initial``: as layers initialise themselves; what cannot do so is drawn from the
            normal distribution of its own mean and deviation, and running statistics begin anew.
            ``shuffled``: each tensor's own values in random order, which keeps the size of signals
            in deep networks that no longer normalise what they should.

    Raises:
        ValueError: no such layer, or no such way.
    """
    if how not in ("initial", "shuffled"):
        raise ValueError(f"how must be initial or shuffled, got {how!r}")
    known = learnt_layers(model)
    chosen = known if layers is None else list(layers)
    if unknown := [name for name in chosen if name not in known]:
        raise ValueError(f"no layer {unknown[0]!r} that has learnt anything; see learnt_layers")
    device = next(model.parameters()).device
    # On the CPU, so that all devices draw the same.
    twin = copy.deepcopy(model).cpu()
    modules = dict(twin.named_modules())
    for name in chosen:
        _redraw(modules[name], how, _seed_of(seed, name))
    return twin.to(device)


def cascade(
    model: nn.Module, seed: int, *, steps: int | None = None, how: How = "initial"
) -> Iterator[tuple[str, nn.Module]]:
    """Copies with more and more layers randomised, from the output down.

    Args:
        model: any network.
        seed: see :func:`randomise`.
        steps: copies, each with as many more layers; one per layer when omitted.
        how: see :func:`randomise`.

    Yields:
        Name of the lowest layer that is random, and a copy with it and all above random. The last
        is random as a whole.

    Raises:
        ValueError: steps fewer than one or more than layers.
    """
    names = learnt_layers(model)[::-1]
    steps = len(names) if steps is None else steps
    if not 1 <= steps <= len(names):
        raise ValueError(f"steps must be from 1 to {len(names)}, the layers, got {steps}")
    for step in range(1, steps + 1):
        count = step * len(names) // steps
        yield names[count - 1], randomise(model, seed, layers=names[:count], how=how)


def _learnt(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and statistics, not those of its parts."""
    own: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    buffers = dict(module.named_buffers(recurse=False))
    return own | {name: buffers[name] for name in STATISTICS if name in buffers}


def _seed_of(seed: int, name: str) -> int:
    """Of a layer, the same whichever others are randomised; ``hash`` differs between processes."""
    mixed = seed
    for letter in name.encode():
        mixed = (mixed * 1_000_003 + letter) % 2**61
    return mixed


@torch.no_grad()
def _redraw(module: nn.Module, how: How, seed: int) -> None:
    learnt = _learnt(module)
    # The caller's random state is left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if how == "shuffled":
            for value in learnt.values():
                value.copy_(value.flatten()[torch.randperm(value.numel())].view_as(value))
            return
        before = {name: value.clone() for name, value in learnt.items()}
        _initialise(module)
        for name, value in learnt.items():
            if name in STATISTICS:
                value.fill_(1.0 if name == "running_var" else 0.0)
            elif torch.equal(value, before[name]) and value.numel() > 1:
                wide = value.double()
                value.copy_(wide.mean() + wide.std() * torch.randn(value.shape).double())


def _initialise(module: nn.Module) -> None:
    """Let a module draw its own parameters anew; its parts keep theirs."""
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is None:
        return
    state = module.state_dict()
    parts = {name: value.clone() for name, value in state.items() if "." in name}
    reset()
    module.load_state_dict(parts, strict=False)
