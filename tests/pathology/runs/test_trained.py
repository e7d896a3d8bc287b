"""What a run knows of the tiles it was trained on, and what it refuses."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pathology.data.tiles import ImageTiles
from pathology.errors import StampMismatchError
from pathology.runs.trained import TileKind, Trained, write_origin
from pathology.tasks.checkpoint import Run
from pathology.tiling import TileSpec

SPEC = TileSpec(size_px=64, mpp=0.5)
ORIGIN = {"size_px": 64, "mpp": 0.5, "colour": "srgb", "digest": "digest", "stain": "target"}


def trained_on(kind):
    return Trained(None, "digest", kind)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (TileSpec(size_px=32, mpp=0.5), "32 px at 0.5 um/px in stored"),
        (TileSpec(size_px=64, mpp=0.25), "64 px at 0.25 um/px in stored"),
        (TileSpec(size_px=64, mpp=0.5, colour="srgb"), "64 px at 0.5 um/px in srgb colours"),
    ],
)
def test_tiles_of_another_kind_are_refused(other, named):
    trained = trained_on(TileKind.of(SPEC))
    trained.check_tiles(TileSpec(size_px=64, mpp=0.5, min_tissue=0.1, placement="grid"), "case_7")
    with pytest.raises(StampMismatchError) as refused:
        trained.check_tiles(other, "case_7")
    assert f"case_7: tiles of {named}" in str(refused.value)
    assert "trained on 64 px at 0.5 um/px in stored colours" in str(refused.value)


def test_image_files_have_a_size_and_say_no_more(tmp_path):
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(tmp_path / "tile.png")
    table = pd.DataFrame({"path": [str(tmp_path / "tile.png")], "label": ["a"]})
    images = ImageTiles(table, ["a", "b"])
    assert TileKind.of(images) == TileKind(48, halo_px=0)
    assert TileKind.of(ImageTiles(table, ["a", "b"], size_px=64)) == TileKind(64, halo_px=0)
    trained_on(TileKind(48)).check_tiles(TileSpec(size_px=48, mpp=1.0, colour="srgb"), "slide")
    with pytest.raises(StampMismatchError, match="tiles of 48 px, the model was trained on 64 px"):
        trained_on(TileKind.of(SPEC)).check_tiles(images, "tiles.csv")


def test_a_dense_run_takes_no_plain_tiles(tmp_path):
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(tmp_path / "tile.png")
    table = pd.DataFrame({"path": [str(tmp_path / "tile.png")], "label": ["a"]})
    dense = TileKind.of(ImageTiles(table, ["a", "b"], size_px=16, halo_px=16))
    assert str(dense) == "16 px with a halo of 16 px"
    plain = ImageTiles(table, ["a", "b"], size_px=16)
    with pytest.raises(StampMismatchError, match=r"tiles of 16 px, .* 16 px with a halo of 16 px"):
        trained_on(dense).check_tiles(plain, "tiles.csv")
    # A specification does not say: the halo is read around its tiles.
    trained_on(dense).check_tiles(TileSpec(size_px=16), "slide")


def test_what_is_not_known_refuses_nothing():
    trained_on(TileKind()).check_tiles(SPEC, "case_7")


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        ({"size_px": 64, "mpp": 0.5}, TileKind(64, 0.5, "stored")),
        ({"size_px": 64, "mpp": None}, TileKind(64)),
        ({"size_px": 64, "mpp": 0.5, "colour": "srgb"}, TileKind(64, 0.5, "srgb")),
        (None, TileKind()),
    ],
)
def test_a_run_names_its_tiles_and_older_runs_showed_them_as_stored(
    tmp_path, monkeypatch, stored, kind
):
    from pathology.runs import trained

    if stored is not None:
        (tmp_path / "made_from.json").write_text(json.dumps({**stored, "digest": "d"}))
    task = SimpleNamespace(to=lambda device: None)
    monkeypatch.setattr(trained, "load_task", lambda run: (task, "checkpoint"))
    assert trained.load_trained(tmp_path, "cpu").tiles == kind


def test_what_a_run_is_made_from_is_written_once(tmp_path):
    run = Run(tmp_path)
    write_origin(run, ORIGIN)
    first = (tmp_path / "made_from.json").read_text()
    assert json.loads(first) == ORIGIN
    write_origin(run, ORIGIN)
    with pytest.raises(StampMismatchError, match="have changed since this run began"):
        write_origin(run, ORIGIN | {"digest": "another"})
