"""A trained run as the verbs use it: task, checkpoint hash, device, and the tiles it knows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from lightning import Callback, LightningModule, Trainer

from pathology.data.modules import TileDataset
from pathology.data.tiles import ImageTiles
from pathology.errors import ManifestError, StampMismatchError
from pathology.outputs import complete_file
from pathology.slides.colour import ColourSpace
from pathology.stain import StainFolder
from pathology.tasks.checkpoint import Run, load_task, read_trained
from pathology.tiling import TileSpec

ORIGIN = "made_from"


@dataclass(frozen=True, slots=True)
class TileKind:
    """What a model must know about tiles: others are as far from it as another stain.

    Args:
        size_px: their side.
        mpp: micrometres per pixel; image files do not say theirs.
        colour: as stored, or by the slides' ICC profiles in sRGB; likewise.
        halo_px: what is shown around each tile, of dense runs; a specification does not say.
    """

    size_px: int | None = None
    mpp: float | None = None
    colour: ColourSpace | None = None
    halo_px: int | None = None

    @classmethod
    def of(cls, tiles: TileDataset | TileSpec) -> Self:
        """The kind of a data set's tiles, or of those that are cut to a specification."""
        if isinstance(tiles, ImageTiles):
            return cls(tiles.size_px or tiles.first_size[0], halo_px=tiles.halo_px)
        if isinstance(tiles, TileSpec):
            return cls(tiles.size_px, tiles.mpp, tiles.colour)
        halo_px = getattr(tiles, "halo_px", 0)  # packed tiles have none
        return cls(tiles.spec.size_px, tiles.spec.mpp, tiles.spec.colour, halo_px)

    def fits(self, other: "TileKind") -> bool:
        """Whether nothing differs of what both say."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return all(ours == theirs for ours, theirs in pairs if None not in (ours, theirs))

    def __str__(self) -> str:
        size = "any size" if self.size_px is None else f"{self.size_px} px"
        mpp = "" if self.mpp is None else f" at {self.mpp} um/px"
        colour = "" if self.colour is None else f" in {self.colour} colours"
        halo = f" with a halo of {self.halo_px} px" if self.halo_px else ""
        return size + mpp + colour + halo


@dataclass(frozen=True, slots=True)
class Trained:
    """A task ready to use, and what it was made from.

    Args:
        task: in eval mode, on its device.
        checkpoint: hash of its weights.
        tiles: the kind of tiles it was trained on, where known.
        stain: fingerprint of the target that these were normalised to, if they were.
        stains: the folder of stain profiles that its config names.
    """

    task: Any  # a Task; each kind has attributes of its own
    checkpoint: str
    tiles: TileKind
    stain: str | None = None
    stains: str | None = None

    def check_stains(self, folder: str | Path | None) -> StainFolder | None:
        """The stain profiles in ``folder``, if the model needs any: tiles look as in training.

        Raises:
            ManifestError: none are given, or the folder holds no target.
            StampMismatchError: of another target than the model was trained with, or of any when it
                was trained on tiles as they are.
        """
        if self.stain is None:
            if folder is not None:
                raise StampMismatchError(
                    f"{folder}: the model was trained on tiles that were not normalised; leave"
                    " --stains out"
                )
            return None
        if folder is None:
            raise ManifestError(
                "the model was trained on normalised tiles of slides; give --stains, a folder that"
                " `pathology stain` wrote with the same target"
            )
        stains = StainFolder(folder)
        if stains.target.digest() != self.stain:
            raise StampMismatchError(
                f"{folder}: stains are normalised to {stains.target.name} by"
                f" {stains.target.method}, the model was trained with another target; run"
                " `pathology stain` with the target of its training"
            )
        return stains

    def check_tiles(self, tiles: TileDataset | TileSpec, where: str) -> None:
        """Refuse tiles of another size, scale or colour than those trained on.

        Raises:
            StampMismatchError: naming both.
        """
        got = TileKind.of(tiles)
        if not self.tiles.fits(got):
            hint = "give such images" if isinstance(tiles, ImageTiles) else "tile the slides again"
            raise StampMismatchError(
                f"{where}: tiles of {got}, the model was trained on {self.tiles}; {hint}"
            )


def write_origin(run: Run, origin: Mapping[str, Any]) -> None:
    """Note in a run's folder what it is trained on.

    Args:
        run: its folder is there.
        origin: of tiles their kind (:class:`TileKind`) and ``stain``, the fingerprint of the target
            they are normalised to; in any case ``digest``, the fingerprint of all that the run
            is made from besides its settings.

    Raises:
        StampMismatchError: the run was begun with other tables or first weights.
    """
    if run.origin.is_file():
        if json.loads(run.origin.read_text())["digest"] != origin["digest"]:
            raise StampMismatchError(
                f"{run.folder}: manifest, tile tables or the weights to start from have changed"
                " since this run began; choose another --out, or remove the folder"
            )
        return
    with complete_file(run.origin) as draft:
        draft.write_text(json.dumps(dict(origin), indent=2) + "\n")


class OriginInCheckpoints(Callback):
    """Writes into checkpoints what was trained on what: one that is moved elsewhere is still known.

    Args:
        task: what is trained.
        origin: see :func:`write_origin`.
    """

    def __init__(self, task: str, origin: Mapping[str, Any]) -> None:
        self.task, self.origin = task, dict(origin)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["task"] = self.task
        checkpoint[ORIGIN] = self.origin


def load_trained(run: Path, device: str = "auto") -> Trained:
    """A run folder's best model on ``device`` (``"auto"``: the GPU if there is one)."""
    task, digest = load_task(run)
    # TF32 rounds to three digits: scores and contributions would no longer add up.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        task.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    folder = Run(run if run.is_dir() else run.parent.parent)
    path = folder.origin
    if path.is_file():
        known = json.loads(path.read_text())
    else:
        known = {} if run.is_dir() else read_trained(run).get(ORIGIN, {})
    # Runs from before there were colours and stain normalisation do not name them.
    before = None if known.get("mpp") is None else "stored"
    tiles = TileKind(
        known.get("size_px"),
        known.get("mpp"),
        known.get("colour", before),
        known.get("halo_px"),
    )
    stain = known.get("stain")
    stains = folder.data_arguments().get("stains") if stain and path.is_file() else None
    return Trained(task, digest, tiles, stain, None if stains is None else str(stains))
