"""A small library to view: slides, runs, and what these say of the slides. Made once per process.

Fixtures, all of the session:

``slides_folder``: ``case_1.tif`` (pixels of 0.5 x 0.41 um, sides that no tile divides), a slide
    named ``ODD`` (HTML, quotes, umlauts; pixels of 1 um), and ``broken.tif``, which is no slide.
``slides_manifest``: a CSV of the two slides with labels.
``runs_folder``: runs ``cnn`` and ``vit`` (random weights, classes "normal" and "tumour"), as
    ``pathology train`` leaves them.
``tiles_folder``: ``SLIDE.parquet`` of both slides.
``results_folder``: ``RUN/SLIDE/TARGET`` as ``pathology explain`` leaves them, without the figures:

    ``cnn/case_1/tumour`` and ``cnn/case_1/tumour_minus_normal``, of which some tiles are undivided;
    ``vit/case_1/tumour``, divided throughout, a mean over two shifts of the grid, with ``layers/``;
    ``cnn/ODD/tumour``, with overlapping tiles.
``library``: the ``Library`` of the manifest and these results, not blind; whoever changes it makes
    one of their own.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

ODD = """<img src=x onerror="alert(1)"> & 'ü'"""
SIZES = {"case_1": (1003, 771), ODD: (420, 380)}
MPP = {"case_1": (0.5, 0.41), ODD: (1.0, 1.0)}


def pixels_of(width: int, height: int, seed: int) -> np.ndarray:
    """Coloured, textured tissue in the middle of bright glass, and a dark blue mark inside of it.

    The mark is a square of 40 px whose top left corner is at a third of either side.
    """
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 240, np.uint8)
    top, left, bottom, right = height // 8, width // 6, height * 7 // 8, width * 7 // 8
    coarse = rng.integers(60, 220, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    coarse[..., 1] //= 2
    texture = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
    pixels[top:bottom, left:right] = texture[top:bottom, left:right]
    x, y = width // 3, height // 3
    pixels[y : y + 40, x : x + 40] = (10, 10, 120)
    return pixels


@pytest.fixture(scope="session")
def slides_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "slides"
    folder.mkdir()
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        x, y = MPP[name]
        tifffile.imwrite(
            folder / f"{name}.tif",
            pixels_of(width, height, seed),
            tile=(128, 128),
            photometric="rgb",
            compression="zlib",
            resolution=(1e4 / x, 1e4 / y),
            resolutionunit="CENTIMETER",
        )
    (folder / "broken.tif").write_text("no slide")
    return folder


@pytest.fixture(scope="session")
def slides_manifest(slides_folder) -> Path:
    path = slides_folder.parent / "slides.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["slide_id", "path", "label"])
        for name, label in zip(SIZES, ("tumour", "<b>normal</b>"), strict=True):
            rows.writerow([name, f"slides/{name}.tif", label])
    return path


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory) -> Path:
    from tests.made_run import write_run

    folder = tmp_path_factory.mktemp("view_runs")
    write_run(folder / "cnn", mpp=1.0)
    small = {"img_size": 32, "depth": 1}
    vit = "bcos_vit_tiny_patch16_224"
    write_run(folder / "vit", mpp=1.0, seed=1, model=vit, model_args=small)
    return folder


@pytest.fixture(scope="session")
def tiles_folder(slides_folder, tmp_path_factory) -> Path:
    from pathology.slides import open_slide
    from pathology.tiling import TileSpec, tile_slide

    folder = tmp_path_factory.mktemp("view_tiles")
    options = {"size_px": 32, "min_tissue": 0.9, "exclude": ()}
    for name, overlap in zip(SIZES, (0, 8), strict=True):
        spec = TileSpec(mpp=1.0, overlap_px=overlap, **options)
        with open_slide(slides_folder / f"{name}.tif") as slide:
            tile_slide(slide, spec).save(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="session")
def results_folder(slides_folder, runs_folder, tiles_folder, tmp_path_factory) -> Path:
    from pathology.api import explain_targets, load_run, open_slide
    from pathology.explain.targets import parse_target
    from pathology.tiling import TileGrid

    folder = tmp_path_factory.mktemp("view_results")
    asked = [
        ("cnn", "case_1", ["tumour", "tumour - normal"], {"detail": 0.7, "out_mpp": 1.3}),
        ("vit", "case_1", ["tumour"], {"jitter": 2, "out_mpp": 1.3}),
        ("cnn", ODD, ["tumour"], {"out_mpp": 3.0}),
    ]
    with pytest.MonkeyPatch.context() as patch:
        # Figures for papers take most of the time of slides this small, and hold no numbers.
        patch.setattr("pathology.explain.results.write.write_figure", lambda *_: None)
        for run, name, targets, options in asked:
            loaded = load_run(runs_folder / run, device="cpu")
            grid = TileGrid.load(tiles_folder / f"{name}.parquet")
            with open_slide(slides_folder / f"{name}.tif") as slide:
                found = explain_targets(slide, grid, loaded, targets, quiet=True, **options)
            for result in found:
                target = parse_target(result.target, loaded.classes).folder
                result.save(folder / run / name / target)
    return folder


@pytest.fixture(scope="session")
def library(slides_manifest, results_folder):
    from pathology.viewer.library.library import Library

    found = Library.find(slides_manifest, [results_folder])
    yield found
    found.close()
