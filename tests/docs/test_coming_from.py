"""Coming from elsewhere: every name of ours exists, and the converters convert."""

import importlib
import inspect
import json
import re

import h5py
import numpy as np
import pandas as pd
import pytest
import timm
import torch

from bcos_vit import layers, losses, render
from bcos_vit.models.weights import PUBLISHED
from pathology.aggregators import AGGREGATORS
from pathology.annotations.read import annotations_of
from pathology.cli import VERBS
from pathology.data.manifest import read_slide_manifest
from pathology.slides import MemorySlide
from pathology.tiling import TileGrid
from tests.cli.made_slides import write_slide
from tests.docs.pages import DOCS, run_page

PAGE = "coming_from.md"
TEXT = (DOCS / PAGE).read_text()


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield run_page(PAGE, tmp_path_factory.mktemp("page"), patch).names


def here(section):
    """The right-hand column of a section's table."""
    part = TEXT.partition(f"## From {section}")[2].partition("\n## ")[0]
    return [row.split(" | ")[1] for row in part.splitlines() if row.startswith("| ")][1:]


def test_models_that_it_names_have_weights():
    named = re.findall(
        r"`(?:timm.create_model\(\")?(bcos_\w+\.in1k\w*)", " ".join(here("B-cos v2"))
    )
    assert len(named) == 4
    assert set(named) <= {weights.name for weights in PUBLISHED}
    assert all(timm.is_model(name.split(".")[0]) for name in named)


def test_names_of_the_table_exist():
    said = " ".join(here("B-cos v2"))
    for name in ("BcosBatchNorm2d", "Logits", "explanation_mode"):
        assert name in said
        assert hasattr(layers, name)
    assert {"BcosConv2d", "BcosLinear"} <= set(layers.__all__)
    assert "render.colour_explanation" in said
    assert callable(render.colour_explanation)
    assert "off_target" in inspect.signature(losses.OneHotBCE).parameters
    assert {"clam", "bcos_gated_sum"} <= set(AGGREGATORS)


def test_commands_have_the_options_that_are_shown():
    commands = re.findall(r"`pathology (\w+)([^`:]*)`", TEXT.replace("…", "X"))
    assert len(commands) > 5
    for verb, rest in commands:
        assert verb in VERBS
        module = importlib.import_module(f"pathology.cli.{verb}")
        function = getattr(module, verb, None)
        if verb == "data":
            sub = rest.split()[0]
            function = module.VERBS[sub][0]
        if verb == "train":
            continue
        options = {f"--{name.replace('_', '-')}" for name in inspect.signature(function).parameters}
        assert set(re.findall(r"--[\w-]+", rest)) <= options, (verb, rest)


def test_clams_splits_become_a_manifest(names, tmp_path):
    slides = ["s1", "s2", "s3", "s4"]
    rows = [f"p{name[1]},{name},tumour" for name in slides]
    (tmp_path / "set.csv").write_text("\n".join(["case_id,slide_id,label", *rows]))
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,s1,s3,s4\n1,s2,,\n")
    for name in slides:
        write_slide(tmp_path / "slides" / f"{name}.tif", 1)
    table = names["manifest_of"](tmp_path / "set.csv", tmp_path / "splits_0.csv", "slides", ".tif")
    table.to_csv(tmp_path / "slides.csv", index=False)
    read = read_slide_manifest(tmp_path / "slides.csv")
    assert read.set_index("slide_id")["split"].to_dict() == {
        "s1": "train", "s2": "train", "s3": "val", "s4": "test"
    }  # fmt: skip
    assert list(read["patient_id"]) == ["p1", "p2", "p3", "p4"]


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"patch_size": 32, "patch_level": 1, "downsample": (2.0, 2.0)}, 64),
        ({"patch_size": 32, "patch_size_level0": 80}, 80),
    ],
)
def test_coordinates_become_a_table_of_tiles(names, tmp_path, attributes, size):
    slide = MemorySlide(np.full((512, 512, 3), 200, np.uint8), 0.25, levels=(1, 2))
    coords = np.array([[128, 64], [64, 0], [0, 0]])
    with h5py.File(tmp_path / "memory.h5", "w") as file:
        data = file.create_dataset("coords", data=coords)
        for name, value in attributes.items():
            data.attrs[name] = value
    grid = names["grid_of"](slide, tmp_path / "memory.h5")
    assert grid.boxes().tolist() == [
        [0, 0, size, size], [64, 0, size, size], [128, 64, size, size]
    ]  # fmt: skip
    assert grid.spec.size_px == 32
    grid.save(tmp_path / "memory.parquet")
    loaded = TileGrid.load(tmp_path / "memory.parquet", slide=slide)
    assert slide.read(loaded[2].box, loaded.spec.mpp).shape == (32, 32, 3)


def test_annotations_get_classes_that_are_read(names):
    square = [[[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square},
               "properties": {"type": "tumour", "prob": 0.9}}  # fmt: skip
    stored = json.dumps({"type": "FeatureCollection", "features": [feature]})
    found = annotations_of(names["with_classes"](stored).encode(), "slide.geojson")
    [drawn] = found.drawn
    assert drawn.names == ("tumour",)


def test_weights_of_the_reference_are_read_by_name(names):
    assert "resnet50" in names["ENTRY_POINTS"]
    assert len(names["ENTRY_POINTS"]) == int(re.search(r"# \(True, (\d+)\)", TEXT)[1])


def test_a_file_of_the_reference_is_read(tmp_path):
    """By what the page shows, with weights under the reference's names."""
    from bcos_vit.models import create_model, from_bcos_v2

    ours = create_model("bcos_resnet18", num_classes=3)
    theirs = {}
    for key, value in ours.state_dict().items():
        if key.startswith("logits."):
            continue
        is_bcos = key.endswith(".weight") and value.ndim == 4
        theirs[key.replace(".weight", ".linear.weight") if is_bcos else key] = value
    torch.save(theirs, tmp_path / "resnet_18.pth")
    model = from_bcos_v2("resnet18", tmp_path / "resnet_18.pth")
    assert model.num_classes == 3
    assert model.logits.bias.tolist() == pytest.approx([-np.log(2)] * 3)
    assert pd.Series(model.state_dict().keys()).isin(ours.state_dict().keys()).all()
