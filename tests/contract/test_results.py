"""Every file of an explanation says its ledger, to readers that share no code with its writer."""

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import ome_types
import pyarrow.parquet as pq
import pydicom
import pytest
import torch
import zarr
from PIL import Image
from pypdf import PdfReader

from bcos_vit.models import BcosVisionTransformer
from pathology.errors import SlideError, StampMismatchError
from pathology.explain.results.stored import load_explanation
from pathology.explain.results.write import check_record, check_source, write_results
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.slide import explain_slide
from pathology.slides import MemorySlide, open_slide
from pathology.tasks.encoding import TileEncoding
from pathology.tiling import TileSpec, tile_slide

from .dicom_slide import write_dicom_slide

TARGET = "tumour - normal"


def of_ome_tiff(path: Path) -> dict[str, Any]:
    notes = ome_types.from_tiff(path).structured_annotations
    (found,) = (note.value for note in notes if note.namespace == "pathology/slide-map")
    return json.loads(found)["metadata"]


def of_ome_zarr(path: Path) -> dict[str, Any]:
    return zarr.open_group(path, mode="r").attrs["bcos_pathology"]["metadata"]


def of_dicom(path: Path) -> dict[str, Any]:
    private = pydicom.dcmread(path, stop_before_pixels=True).private_block(0x0071, "bcos-pathology")
    return json.loads(private[0x01].value)["metadata"]


def of_groovy(path: Path) -> dict[str, Any]:
    (line,) = (line for line in path.read_text().splitlines() if line.startswith("// {"))
    return json.loads(line.removeprefix("// "))


def of_geojson(path: Path) -> dict[str, Any]:
    assert len(geopandas.read_file(f"/vsigzip/{path}"))
    return json.loads(gzip.decompress(path.read_bytes()))["bcos_pathology"]


def of_png(path: Path) -> dict[str, Any]:
    with Image.open(path) as image:
        return json.loads(image.text["bcos_pathology"])


READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    r"explanation\.json": lambda path: json.loads(path.read_text()),
    r"tiles\.parquet": lambda path: json.loads(pq.read_schema(path).metadata[b"bcos_pathology"]),
    r"tiles\.geojson\.gz": of_geojson,
    r"heatmap\.groovy": of_groovy,
    r".*\.ome\.tif": of_ome_tiff,
    r".*\.ome\.zarr": of_ome_zarr,
    r".*\.dcm": of_dicom,
    r".*\.png": of_png,
    r"figure\.pdf": lambda path: json.loads(PdfReader(path).metadata["/Keywords"]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of results with stains, layers and every format, and the ledger."""
    folder = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(60, 250, (12, 16, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    write_dicom_slide(folder / "slide.dcm", pixels, (0.5, 0.5))
    torch.manual_seed(0)
    model = BcosVisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=2,
        encoding="stain",
    ).eval()  # fmt: skip
    scorer = PooledLogits(model, TileEncoding(model), ["normal", "tumour"])
    out = folder / "out"
    out.mkdir()
    with open_slide(folder / "slide.dcm") as slide:
        grid = tile_slide(slide, TileSpec(32, 0.5, overlap_px=16, min_tissue=0.0))
        result = explain_slide(
            slide, grid, scorer, TARGET, out_mpp=2.0, detail=0.9, scratch=folder / "scratch"
        )
        result = replace(result, layers={"null": result.contributions})
        write_results(result, slide, out, {"out_mpp": 2.0}, {"run": "none"}, ["ome-zarr", "dicom"])
    return out, result.ledger.to_dict()


def files_in(folder: Path) -> list[Path]:
    """All files, a Zarr folder as one."""
    found = [path for path in folder.rglob("*") if path.suffix == ".zarr" or path.is_file()]
    return [path for path in found if not any(up.suffix == ".zarr" for up in path.parents)]


def test_every_file_carries_the_ledger(made):
    folder, ledger = made
    known = set()
    for path in files_in(folder):
        if path.name in ("slide.jpg", "report.html"):  # the slide itself; see below
            continue
        (pattern,) = (each for each in READERS if re.fullmatch(each, path.name))
        known.add(pattern)
        record = READERS[pattern](path)
        assert record["target"] == TARGET, path
        assert record["ledger"] == ledger, path
        assert record["ledger"]["is_closed"], path
        assert record["ledger"]["undivided"]["tiles"] > 0, path
        assert record["settings"] == {"out_mpp": 2.0}, path
    assert known == set(READERS)


def test_the_table_of_tiles_stands_by_itself(made):
    schema = pq.read_schema(made[0] / "tiles.parquet")
    record = json.loads(schema.metadata[b"bcos_pathology"])
    assert record["coefficients"] == {"tumour": 1.0, "normal": -1.0}
    assert record["bounds"] == [0.0, 0.0, 192.0, 144.0]
    assert list(record["columns"]) == schema.names
    assert {"logit_tumour", "eosin"} <= set(schema.names)
    for name, told in record["columns"].items():
        assert told["meaning"], name
        assert told["unit"] in ("level-0 px", "fraction", "1", "logit"), name
    columns = pq.read_table(made[0] / "tiles.parquet").to_pandas()
    total = float(columns["weight"] @ columns["contribution"].fillna(0.0))
    ledger = record["ledger"]
    # The map's float32 pixels are rounded once each.
    assert total == pytest.approx(ledger["map_sum"] + ledger["cut_off"], abs=1e-6)


def test_folders_from_before_are_read_and_not_made_again(made, tmp_path):
    record = json.loads((made[0] / "explanation.json").read_text())
    for later in ("coefficients", "bounds", "view", "formats", "stains"):
        del record[later]
    del record["ledger"]["undivided"], record["ledger"]["constants"]
    (tmp_path / "explanation.json").write_text(json.dumps(record))
    found = load_explanation(tmp_path)
    assert (found.slide_id, found.target, found.view) == ("slide", TARGET, None)
    assert found.ledger.is_closed
    check_record(tmp_path, {"out_mpp": 2.0, "detail": 1.0, "depth": "pixels"}, [])
    with pytest.raises(StampMismatchError, match="made without dicom"):
        check_record(tmp_path, {"out_mpp": 2.0}, ["dicom"])
    with pytest.raises(StampMismatchError, match="made with out_mpp=2"):
        check_record(tmp_path, {"out_mpp": 4.0}, [])


def test_the_report_prints_the_ledger(made):
    folder, ledger = made
    text = (folder / "report.html").read_text().replace("\u2212", "-")
    for name in ("score", "map_sum", "cut_off"):
        number = ledger[name]
        assert (f"{number:+.6f}" if number else "0") in text, name
    assert f"{ledger['undivided']['net']:+.6f}" in text


def test_a_parametric_map_is_of_a_dicom_slide():
    slide = MemorySlide(np.zeros((8, 8, 3), np.uint8), mpp=0.5)
    check_source(slide, ["ome-zarr"])
    with pytest.raises(SlideError, match="no DICOM slide"):
        check_source(slide, ["dicom"])


def test_a_slide_that_does_not_say_where_it_lies_is_refused_before_the_work(tmp_path):
    path = tmp_path / "slide.dcm"
    write_dicom_slide(path, np.zeros((64, 64, 3), np.uint8), (0.5, 0.5))
    with open_slide(path) as slide:
        check_source(slide, ["dicom"])
    header = pydicom.dcmread(path)
    del header.TotalPixelMatrixOriginSequence
    header.save_as(path)
    with open_slide(path) as slide, pytest.raises(SlideError, match="OriginSequence"):
        check_source(slide, ["dicom"])


def test_maps_of_stains_and_layers_are_among_the_files(made):
    names = {path.name for path in files_in(made[0])}
    assert {"heatmap_haematoxylin.ome.tif", "overlay_eosin.png", "null.ome.tif"} <= names
    assert {"heatmap.ome.zarr", "density.ome.zarr", "heatmap.dcm", "figure.png"} <= names
