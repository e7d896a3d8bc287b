"""docs/tutorials/qupath_and_back.md: all of it but QuPath, on smaller slides and for one epoch."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from pathology.annotations import read_annotations, read_classes, read_regions
from pathology.api import load_explanation, open_slide
from pathology.cli import main
from pathology.tiling import TileGrid
from pathology.viewer.library.library import Library
from tests.docs.pages import DOCS, run_page
from tests.docs.sketches import sketch_figures

PAGE = "tutorials/qupath_and_back.md"
SMALL = {
    "size_px=(1536, 1536)": "size_px=(768, 768)",
    "shapely.box(700, 700, 800, 800)": "shapely.box(300, 300, 400, 400)",
    "--trainer.max_epochs 6": "--trainer.max_epochs 1",
}
SLIDES = ("test_000", "train_000", "train_001", "val_000")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        sketch_figures(patch)
        yield folder, run_page(PAGE, folder, patch, SMALL)


def test_annotations_are_as_qupath_writes_them_and_are_read(ran):
    folder, page = ran
    printed = page.output_of("pathology annotations --regions")
    assert "4 slides in order" in printed
    for name in SLIDES:
        drawn = read_annotations(folder / "annotations" / f"{name}.geojson")
        assert {one.names[0] for one in drawn.drawn} == {"Normal", "Tumor", "Ignore*"}
        assert all(one.identity for one in drawn.drawn)


def test_a_name_that_is_not_mentioned_is_the_error_that_is_shown(ran, tmp_path, capsys):
    folder, _ = ran
    classes = {"normal": ["Normal", "Stroma"], "tumour": ["Tumor"]}
    (tmp_path / "regions.json").write_text(json.dumps(classes))
    words = ["--regions", "slides.csv", "--classes", str(tmp_path / "regions.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["annotations", *words]) == 3
    said = capsys.readouterr().out
    start = "train_000: "
    line = next(line for line in said.splitlines() if line.strip().startswith(start)).strip()
    shown = (DOCS / PAGE).read_text().partition("it would say:")[2].split("```")[1]
    assert line.partition(" (")[0] in " ".join(shown.split())
    assert line.rpartition("; ")[2] in " ".join(shown.split())


def test_labels_are_what_is_under_the_tiles(ran):
    folder, page = ran
    for name in SLIDES:
        with open_slide(folder / "slides" / f"{name}.tif") as slide:
            truth = read_regions(
                folder / "slides" / f"{name}_regions.tif",
                slide,
                read_classes(folder / "slides" / "regions.json"),
            )
        grid = TileGrid.load(folder / "tiles" / f"{name}.parquet")
        label = pd.Series(grid.columns["label"])
        assert {"normal", "tumour"} <= set(label)
        shares = dict(zip(truth.names, truth.covered(grid.boxes()), strict=True))
        for kind in ("normal", "tumour"):
            assert shares[kind][label == kind].mean() > 0.85
    assert set(page.names["tiles"]) == set(SLIDES)


def test_labelled_tiles_go_to_qupath(ran):
    folder, page = ran
    features = json.loads((folder / "train_000_tiles.geojson").read_text())["features"]
    labels = page.names["tiles"]["train_000"]["label"]
    assert len(features) == len(labels)
    found = [each["properties"].get("classification", {}).get("name", "") for each in features]
    assert found == labels.tolist()


def test_the_explanation_is_ready_for_qupath(ran):
    folder, _ = ran
    made = folder / "explained" / "test_000" / "tumour"
    assert load_explanation(made).ledger.is_closed
    for file in ("heatmap.groovy", "heatmap.ome.tif", "tiles.geojson.gz"):
        assert (made / file).is_file(), file
    script = (made / "heatmap.groovy").read_text()
    assert "test_000.tif" in script
    assert "Against and for" in script


def test_shares_in_qupath_sum_to_the_ledger(ran):
    _, page = ran
    shares, ledger = page.names["shares"], page.names["ledger"]
    rounding = 1e-5 * sum(map(abs, shares)) / 1e6
    assert sum(shares) / 1e6 == pytest.approx(ledger.map_sum + ledger.cut_off, abs=rounding)
    assert np.std(shares) > 0


def test_drawn_areas_have_their_part_of_the_map(ran):
    folder, page = ran
    parts = page.names["parts"]
    assert list(parts) == ["normal", "tumour"]
    explained, inside = page.names["heat"], page.names["inside"]
    assert inside.min() >= 0
    assert inside.max() == pytest.approx(1.0)
    assert (inside.sum(axis=0) > 1.001).mean() < 0.1  # outlines that overlap
    absolute = np.nansum(np.abs(explained.values), dtype=np.float64)
    assert 0 < sum(map(abs, parts.values())) <= 1.1 * absolute
    with open_slide(folder / "slides" / "test_000.tif") as slide:
        truth = read_regions(
            folder / "slides" / "test_000_regions.tif",
            slide,
            read_classes(folder / "slides" / "regions.json"),
        )
    values = np.nan_to_num(explained.values).ravel()
    for (name, part), covered in zip(
        parts.items(), truth.covered(page.names["boxes"]), strict=True
    ):
        assert part == pytest.approx(values @ covered, abs=0.2 * absolute), name


def test_the_viewer_finds_it_all(ran):
    folder, page = ran
    [words] = page.servers
    assert " ".join(words) == "view --slides slides.csv --results explained/ --run runs/drawn"
    library = Library.find(folder / "slides.csv", [folder / "explained"])
    assert (len(library.slides), len(library.evidence)) == (4, 1)
    library.close()


def test_its_pictures_are_there():
    for name in re.findall(r"\]\((\.\./images/[^)]+)\)", (DOCS / PAGE).read_text()):
        assert 0 < (DOCS / "tutorials" / name).stat().st_size < 150_000, name
