"""What ``pathology features`` does for one slide."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cli.counted import counted
from pathology.errors import ManifestError, StampMismatchError
from pathology.runs.encoder_choice import EncoderChoice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pathology.data.encoders import Encoder, Precision
    from pathology.data.features import FeatureKind
    from pathology.slides import Slide
    from pathology.stain import StainFolder
    from pathology.tiling import TileGrid, TileSpec


@dataclass(frozen=True)
class Extractor:
    """The work on one slide; the encoder is loaded once per process, when first asked for.

    Args:
        choice: the encoder.
        tiles: folder of the tile tables.
        out: folder for the features.
        spec: how tiles must be cut.
        precision: what is computed in.
        stored: what is kept.
        stains: folder of stain profiles; ``None`` for tiles as they are.
        device: where the encoder computes.
        batch_size: tiles at once.
        readers: threads that read tiles.
        kind: what the features must be of, as said by another process.
        bars: progress within a slide is shown.
    """

    choice: EncoderChoice
    tiles: Path
    out: Path
    spec: "TileSpec"
    precision: "Precision" = "fp32"
    stored: str = "float32"
    stains: Path | None = None
    device: str = "auto"
    batch_size: int = 64
    readers: int = 4
    kind: "FeatureKind | None" = None
    bars: bool = True

    def __getstate__(self) -> dict[str, Any]:
        """Without what was loaded: every process loads its own."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def loaded(self) -> "_Loaded":
        """Encoder, stains and kind of this process.

        Raises:
            StampMismatchError: the encoder takes other tiles or stains, or is not the one that the
                run began with.
        """
        from pathology.data.features import FeatureKind
        from pathology.runs.chosen_encoder import chosen_encoder
        from pathology.stain import StainFolder

        encoder, trained, device = chosen_encoder(self.choice, self.device)
        if trained is None:
            profiles = StainFolder(self.stains) if self.stains else None
            encoder.check_size(self.spec.size_px, self.tiles)
        else:
            profiles = trained.check_stains(self.stains or trained.stains)
            trained.check_tiles(self.spec, str(self.tiles))
        kind = FeatureKind(
            encoder.name, encoder.weights, encoder.dims, encoder.encoding, self.precision,
            self.stored, self.spec, profiles.target.digest() if profiles else None,
        )  # fmt: skip
        if self.kind is not None:
            kind.check(f"encoder {self.choice.name}", self.kind, "when the run began")
        return _Loaded(encoder, kind, profiles, device)

    def __call__(self, row: dict[str, Any]) -> str:
        """Features of the slide of a manifest's row; returns a line about them."""
        from pathology.data.features import (
            FeatureStamp,
            claim_folder,
            feature_path,
            read_stamp,
            write_features,
        )
        from pathology.data.grids import grid_path, load_grid, open_tiled

        kind, profiles = self.loaded.kind, self.loaded.profiles
        source = grid_path(self.tiles, row)
        grid = load_grid(source, row)
        check_spec(source, grid, self.spec)
        name = str(row["slide_id"])
        profile = profiles and profiles.profile(name, grid.source.stamp, self.spec.colour)
        stamp = FeatureStamp.of(kind, name, grid, profile.digest() if profile else None)
        path = feature_path(self.out, name)
        if path.exists():
            read_stamp(path)[0].check(path, stamp)
            return f"{path}: {len(grid):,} tiles, made before by the same encoder"
        normalise = (
            partial(profiles.normaliser(), profiles=profile) if profiles and profile else None
        )
        began = time.perf_counter()
        with open_tiled(row, grid) as slide:
            # Somebody may have emptied the folder while this run was at work.
            claim_folder(self.out, kind)
            with write_features(path, stamp, grid.boxes(), self.made) as writer:
                for rows in self._rows(slide, grid, normalise):
                    writer.append(rows)
        speed = len(grid) / (time.perf_counter() - began)
        return f"{path}: {len(grid):,} tiles, {kind.dims} features each, {speed:,.0f} tiles/s"

    def _rows(self, slide: "Slide", grid: "TileGrid", normalise: Any) -> "Iterator[Any]":
        """Features in the order of the grid, batch by batch.

        A batch is read while the one before is encoded, and written while the next one is.
        """
        from tqdm import tqdm

        from pathology.explain.tile_reader import read_batches

        encoder, device = self.loaded.encoder, self.loaded.device
        batches = read_batches(
            slide,
            grid,
            lambda tile: tile.box,
            grid.spec.mpp,
            self.batch_size,
            self.readers,
            device,
            normalise,
        )
        before: Tensor | None = None
        with tqdm(
            total=len(grid),
            desc=grid.source.slide_id,
            unit="tile",
            leave=False,
            disable=not self.bars,
        ) as progress:
            for chosen, tiles in counted(batches):
                features = encoder(tiles, self.precision)
                if before is not None:
                    yield before.cpu().numpy()
                before = features
                progress.update(len(chosen))
            if before is not None:
                yield before.cpu().numpy()

    @property
    def made(self) -> str:
        """By what, in words."""
        import timm
        import torch

        import bcos_vit

        device = self.loaded.device
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        return (
            f"bcos-pathology {bcos_vit.__version__}, torch {torch.__version__}, timm"
            f" {timm.__version__}, {where}, batches of {self.batch_size}"
        )


@dataclass(frozen=True)
class _Loaded:
    """What a process has loaded."""

    encoder: "Encoder"
    kind: "FeatureKind"
    profiles: "StainFolder | None"
    device: "torch.device"


def check_spec(where: Path, grid: "TileGrid", spec: "TileSpec") -> None:
    """Refuse a table without tiles, or of tiles that are cut otherwise than others.

    Raises:
        ManifestError: no tiles.
        StampMismatchError: another specification.
    """
    if grid.spec != spec:
        raise StampMismatchError(
            f"{where}: tiles of {grid.spec}, others of {spec}; tile all slides with one"
            " specification"
        )
    if not len(grid):
        raise ManifestError(f"{where}: holds no tiles; leave the slide out, or tile it anew")
