"""``pathology features``: what an encoder returns for each tile, one file a slide."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function

if TYPE_CHECKING:
    import pandas as pd

    from pathology.tiling import TileSpec


def features(
    slides: Path,
    tiles: Path,
    out: Path,
    encoder: str,
    weights: Path | None = None,
    pretrained: bool = False,
    encoder_seed: int | None = None,
    encoder_args: dict[str, Any] | None = None,
    resize: bool = False,
    pixels: Literal["imagenet", "half", "clip", "model"] | None = None,
    stains: Path | None = None,
    precision: Literal["fp32", "fp16", "bf16"] = "fp32",
    stored: Literal["float32", "float16"] = "float32",
    mpp: float | None = None,
    part: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    readers: int = 4,
    workers: int = 0,
    keep_going: bool = False,
) -> int:
    """Write features of tiles for training on whole slides: OUT/SLIDE.h5 (docs/features.md).

    Each file says what made it; OUT/features.yaml says what all of them share, and nothing else is
    mixed with them. A run that was stopped goes on where it was.

    Args:
        slides: manifest (slides.csv), folder of slides, or one slide.
        tiles: folder that `pathology tile` wrote.
        out: folder for the features.
        encoder: folder of a trained run, a name of timm's or hf-hub:owner/name, or a function of
            yours, package.module:function, that returns an encoder.
        weights: file of weights for a timm name (.safetensors, .pth, .bin).
        pretrained: download the weights that timm has under that name.
        encoder_seed: make random weights, as a control for those that were learnt.
        encoder_args: further arguments of timm.create_model, such as '{init_values: 1e-5}'.
        resize: resize tiles to the size that a timm model takes, rather than refuse others.
        pixels: mean and deviation that RGB is normalised by: imagenet, half (0.5 both), clip, or
            model (what goes with the name, the default but with --weights).
        stains: folder of stain profiles, to normalise tiles by; a run's own when omitted.
        precision: what the encoder computes in. fp16 and bf16 are quicker on GPUs.
        stored: what is kept. float16 halves the files, and keeps three digits.
        mpp: micrometres per pixel of slides that do not say it themselves.
        part: 3/16 takes the third of every 16 slides, so that 16 jobs share the work.
        device: auto, cpu, cuda, cuda:1, ...
        batch_size: tiles per pass through the encoder.
        readers: threads that read tiles while the encoder computes.
        workers: processes that work on a slide each, every one with an encoder of its own; 0: this
            one.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    from dataclasses import replace

    from pathology.cli.feature_slide import Extractor
    from pathology.cohort.choice import make_engine
    from pathology.cohort.each_slide import each_slide
    from pathology.cohort.engine import Needs
    from pathology.cohort.parts import parse_part
    from pathology.data.features import KIND_FILE, claim_folder, feature_path
    from pathology.data.slide_list import list_slides
    from pathology.outputs import remove_drafts, writable_folder
    from pathology.runs.encoder_choice import EncoderChoice

    numbers = (("batch-size", 1, batch_size), ("readers", 1, readers), ("workers", 0, workers))
    for name, least, value in numbers:
        if value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if out.resolve() == tiles.resolve():
        raise ValueError(f"--out {out} is the folder of the tiles; choose another")
    table = list_slides(slides, mpp)
    spec = _first_spec(tiles, table)
    which, of = parse_part(part)
    table = table.iloc[which - 1 :: of]
    ending = f"-{which}-of-{of}" if part else ""
    failures = out / f"failures{ending}.csv"
    if not len(table):
        print(f"no slide falls to part {part}")
        return 0
    choice = EncoderChoice(encoder, weights, pretrained, encoder_seed, encoder_args, resize, pixels)
    work = Extractor(
        choice, tiles, out, spec, precision, stored, stains, device, batch_size, readers
    )
    kind = work.loaded.kind
    writable_folder(out)
    claim_folder(out, kind)
    paths = [feature_path(out, name) for name in table["slide_id"]]
    remove_drafts(out, [failures.name, *(path.name for path in paths)])
    print(f"{out / KIND_FILE}: {kind.encoder}, {kind.dims} features, of {kind.encoding}")
    missing = [path for path in paths if not path.exists()]
    began = time.perf_counter()
    if workers:
        # Theirs are the encoders that work: this one's memory is not needed.
        work = replace(work, kind=kind)
    code = each_slide(
        table,
        work,
        "features",
        engine=make_engine(workers=workers),
        needs=Needs(gpus=float(device in ("auto", "cuda"))),
        keep_going=keep_going,
        failures=failures,
    )
    _report([path for path in missing if path.exists()], time.perf_counter() - began)
    return code


def _first_spec(tiles: Path, table: "pd.DataFrame") -> "TileSpec":
    """How the tiles are cut: as those of the first slide that has any."""
    from pathology.data.grids import grid_path
    from pathology.errors import ManifestError
    from pathology.tiling import TileGrid

    for row in table.to_dict("records"):
        path = grid_path(tiles, row)
        if path.is_file():
            return TileGrid.load(path).spec
    raise ManifestError(f"{tiles}: no tile table of these slides; run `pathology tile` first")


def _report(made: Sequence[Path], seconds: float) -> None:
    """How many tiles a second, all in all."""
    from pathology.data.features import read_stamp

    tiles = sum(read_stamp(path)[1] for path in made)
    if tiles:
        print(
            f"{tiles:,} tiles of {len(made)} slides in {seconds:,.0f} s:"
            f" {tiles / max(seconds, 1e-9):,.0f} tiles/s"
        )


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(features, arguments)
