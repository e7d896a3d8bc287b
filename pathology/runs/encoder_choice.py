"""Which encoder makes features of tiles: as the command line says it, and loading it."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from pathology.data.encoders import Encoder, Pixels
    from pathology.runs.trained import Trained


@dataclass(frozen=True)
class EncoderChoice:
    """Which encoder, as the command line says it; may be sent to another process.

    Args:
        name: folder or checkpoint of a run, timm's or the hub's name, or
            ``package.module:function``.
        weights, pretrained, seed, arguments, resize, pixels: see
            :func:`pathology.data.encoders.timm_encoder`.
    """

    name: str
    weights: Path | None = None
    pretrained: bool = False
    seed: int | None = None
    arguments: dict[str, Any] | None = None
    resize: bool = False
    pixels: "Pixels | None" = None

    def load(self, device: str = "auto") -> "tuple[Encoder, Trained | None, torch.device]":
        """The encoder, the run that it is of if it is of one, and where it computes.

        Raises:
            ManifestError, ValueError, WeightsError, UnknownModelError: see
                :func:`pathology.data.encoders.encoder_named`.
        """
        from pathology.data.encoders import encoder_named, pick_device

        if not self.name.strip():
            raise ValueError("--encoder is empty: give a run, a timm name, or a function of yours")
        place = pick_device(device)
        if not self.is_run:
            encoder = encoder_named(
                self.name, self.weights, self.pretrained, self.seed, self.arguments, self.resize,
                self.pixels, place,
            )  # fmt: skip
            return encoder, None, place
        from pathology.runs.trained import load_trained
        from pathology.tasks.encoder import task_encoder

        others = [f.name for f in fields(self) if f.name != "name" and getattr(self, f.name)]
        if others or self.seed is not None:
            raise ValueError(
                f"--encoder {self.name} is a run, which has its weights and tile size itself; leave"
                " out --weights, --pretrained, --encoder-seed, --encoder-args, --resize, --pixels"
            )
        trained = load_trained(Path(self.name), str(place))
        return task_encoder(trained.task, trained.checkpoint), trained, place

    @property
    def is_run(self) -> bool:
        """Whether it names a run: a path, whether there is one or not."""
        from pathology.data.encoders import HUB

        if self.name.startswith(HUB):
            return False
        is_path = "/" in self.name or self.name.endswith(".ckpt")
        return is_path or Path(self.name).is_dir()
