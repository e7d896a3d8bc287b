"""``pathology features``: what an encoder returns for each tile, one file a slide."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function

if TYPE_CHECKING:
    import pandas as pd

    from pathology.store.place import Place
    from pathology.store.store import Store
    from pathology.tiling import TileSpec


def features(
    slides: str | Path,
    tiles: str | Path,
    out: str | Path,
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
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers_per_gpu: int = 1,
    retries: int = 1,
    keep_going: bool = False,
) -> int:
    """Write features of tiles for training on whole slides: OUT/SLIDE.h5 (docs/features.md).

    Each file says what made it; OUT/features.yaml says what all of them share, and nothing else is
    mixed with them. A run that was stopped goes on where it was.

    Args:
        slides: manifest (slides.csv), folder of slides, or one slide; here or by URL (s3://, gs://).
        tiles: folder or URL that `pathology tile` wrote to.
        out: folder or URL for the features.
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
        mpp: micrometres per pixel of slides whose row does not say it, whatever their files say.
        part: 3/16 takes the third of every 16 slides, so that 16 jobs share the work.
        device: auto, cpu, cuda, cuda:1, ...
        batch_size: tiles per pass through the encoder.
        readers: threads that read tiles while the encoder computes.
        workers: processes that work on a slide each, every one with an encoder of its own and,
            where there are several, a graphics card; 0: this one, and with ray as many as there is
            place for.
        engine: local, processes of this machine, or ray, those of a cluster.
        address: of the cluster that this machine belongs to, with ray: auto or host:port; a cluster
            of this machine alone when omitted.
        workers_per_gpu: workers that share a graphics card, with ray: 2 where slides come by URL
            or are explained, so that one computes while the other reads or writes.
        retries: how often a slide is tried again whose worker died.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    from dataclasses import replace

    from pathology.cli.feature_slide import Extractor
    from pathology.cli.on_cohort import OnCohort, Results, named_as_kept
    from pathology.cohort.bench import Input
    from pathology.data.features import FORMAT, KIND_FILE, claim_folder
    from pathology.data.slide_list import list_slides
    from pathology.outputs import remove_drafts
    from pathology.runs.encoder_choice import EncoderChoice
    from pathology.store.place import input_place, output_place
    from pathology.store.store import Store

    for name, value in (("batch-size", batch_size), ("readers", readers)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    cohort = OnCohort(engine, address, workers, retries, part, keep_going)
    needs = cohort.needs(device, readers, workers_per_gpu)
    with input_place(tiles) as tables, named_as_kept(tables):
        table = list_slides(slides, mpp)
        spec = _first_spec(tables, table)
        if not len(cohort.slides_of(table)):
            print(f"no slide falls to part {part}")
            return 0
        store = Store.at(out)
        if _is_same(store, tables.store):
            raise ValueError(f"--out {out} is the folder of the tiles; choose another")
        choice = EncoderChoice(
            encoder, weights, pretrained, encoder_seed, encoder_args, resize, pixels
        )
        work = Extractor(
            choice, tables.folder, store.folder if store.is_local else Path(), spec, precision,
            stored, stains, device, batch_size, readers, bars=cohort.bars,
        )  # fmt: skip
        # Where others work, this process only looks at what they will load.
        loaded = (replace(work, device="cpu") if cohort.is_elsewhere else work).loaded
        kind, inputs = loaded.kind, {"tiles": Input(tables.store)}
        if loaded.profiles:
            inputs["stains"] = Input(Store.at(loaded.profiles.folder), (".json",))
        del loaded
        if cohort.is_elsewhere:
            work = replace(work, kind=kind)
        with output_place(out) as place, named_as_kept(place):
            place.fetch([KIND_FILE])
            claim_folder(place.folder, kind)
            if not place.claim(KIND_FILE):
                claim_folder(place.folder, kind)  # another run was quicker: see whether it fits
            drafts = [cohort.failures, *(f"{name}.h5" for name in table["slide_id"])]
            remove_drafts(place.folder, drafts)
            where = store.where(KIND_FILE)
            print(f"{where}: {kind.encoder}, {kind.dims} features, of {kind.encoding}")
            key = f"format {FORMAT} {kind.digest()}"
            results = Results("features", "features", (".h5",), key, inputs)
            try:
                return cohort.each_slide(table, work, results, place, needs)
            finally:
                # Again: workers may have died meanwhile, or outlived a run that was killed.
                remove_drafts(place.folder, drafts)


def _is_same(one: "Store", other: "Store") -> bool:
    """Whether they are the same place."""
    if one.is_local and other.is_local:
        return one.folder.resolve() == other.folder.resolve()
    return one.place == other.place


def _first_spec(tables: "Place", table: "pd.DataFrame") -> "TileSpec":
    """How the tiles are cut: as those of the first slide that has any."""
    from pathology.data.grids import grid_path
    from pathology.errors import ManifestError
    from pathology.tiling import TileGrid

    for row in table.to_dict("records"):
        path = grid_path(tables.folder, row)
        if tables.fetch([path.name]):
            return TileGrid.load(path).spec
    raise ManifestError(
        f"{tables.store.place}: no tile table of these slides; run `pathology tile` first"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(features, arguments)
