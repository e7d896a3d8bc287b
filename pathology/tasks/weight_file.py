"""Trained weights in safetensors: no code runs when they are read, and other programs read them.

All that is not a tensor stands in the file's metadata, as JSON under one key.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bcos_vit.errors import WeightsError
from pathology.outputs import complete_file

KEY = "pathology"  # of the metadata
EXTRA = "extra_state"
KEPT = ("task", "hyper_parameters", "made_from", "epoch", "global_step")


def write_weight_file(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write the weights of a Lightning checkpoint, and what is needed to use them.

    Args:
        path: the file; it is complete or not there.
        checkpoint: with ``state_dict`` and ``hyper_parameters``; optimiser and the like are left.

    Raises:
        OutputError: it cannot be written.
        TypeError: a hyper-parameter, or what a module keeps, has no JSON form.
    """
    known = {name: checkpoint[name] for name in KEPT if name in checkpoint}
    known["hyper_parameters"] = dict(known["hyper_parameters"])
    weights = checkpoint["state_dict"]
    # Modules may keep plain values beside tensors, such as the stains of an encoding.
    known[EXTRA] = {name: x for name, x in weights.items() if not isinstance(x, torch.Tensor)}
    # Copies: tensors that share memory are refused, and so are views.
    tensors = {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in weights.items()
        if isinstance(value, torch.Tensor)
    }
    content = save(tensors, {"format": "pt", KEY: json.dumps(known)})
    with complete_file(path) as draft, draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_weight_file(path: Path) -> dict[str, Any]:
    """What :func:`write_weight_file` wrote: ``state_dict``, ``hyper_parameters`` and the rest.

    Raises:
        WeightsError: the file cannot be read, or holds weights of something else.
    """
    try:
        with safe_open(path, "pt") as file:
            known: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
            known["hyper_parameters"]
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return known | {"state_dict": weights | known.pop(EXTRA, {})}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error} in its metadata" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"{path}: not a usable checkpoint: {reason}") from error
