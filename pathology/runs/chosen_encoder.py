"""Loading the encoder that was chosen."""

from dataclasses import fields
from pathlib import Path

import torch

from pathology.data.encoders import HUB, Encoder, encoder_named, pick_device
from pathology.runs.encoder_choice import EncoderChoice
from pathology.runs.trained import Trained, load_trained


def chosen_encoder(
    choice: EncoderChoice, device: str = "auto"
) -> tuple[Encoder, Trained | None, torch.device]:
    """The encoder, the run that it is of if it is of one, and where it computes.

    Raises:
        ManifestError, ValueError, WeightsError, UnknownModelError: see
            :func:`pathology.data.encoders.encoder_named`.
    """
    if not choice.name.strip():
        raise ValueError("--encoder is empty: give a run, a timm name, or a function of yours")
    place = pick_device(device)
    if not _is_run(choice.name):
        encoder = encoder_named(
            choice.name, choice.weights, choice.pretrained, choice.seed, choice.arguments,
            choice.resize, choice.pixels, place,
        )  # fmt: skip
        return encoder, None, place
    from pathology.tasks.encoder import task_encoder

    others = [f.name for f in fields(choice) if f.name != "name" and getattr(choice, f.name)]
    if others or choice.seed is not None:
        raise ValueError(
            f"--encoder {choice.name} is a run, which has its weights and tile size itself; leave"
            " out --weights, --pretrained, --encoder-seed, --encoder-args, --resize, --pixels"
        )
    trained = load_trained(Path(choice.name), str(place))
    return task_encoder(trained.task, trained.checkpoint), trained, place


def _is_run(name: str) -> bool:
    """Whether it names a run: a path, whether there is one or not."""
    if name.startswith(HUB):
        return False
    is_path = "/" in name or name.endswith(".ckpt")
    return is_path or Path(name).is_dir()
