"""What the data module of tiles says of a manifest: its rows, its truth, how often classes show."""

import pandas as pd
import pytest
import torch
from PIL import Image

from pathology.data.manifest import read_tile_manifest
from pathology.data.modules import TileDataModule
from pathology.errors import ManifestError
from pathology.tiling import TileGrid

CLASSES = ["normal", "tumour"]


@pytest.fixture
def make(tmp_path):
    """A data module of a few images whose red is their row."""

    def make(text, classes=CLASSES, folder=".", **options):
        rows = [line.split(",") for line in text.strip().splitlines()]
        for i, row in enumerate(rows[1:]):
            path = tmp_path / folder / row[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
        (tmp_path / "tiles.csv").write_text(text)
        options = {"batch_size": 4, "num_workers": 0, "augment": "none"} | options
        return TileDataModule(str(tmp_path / "tiles.csv"), classes, **options)

    return make


PLAIN = "file,label\na.png,tumour\nsub/b.png,normal\nc.png,tumour\n"


@pytest.mark.parametrize("folder", [".", "images"])
def test_a_table_of_files_and_labels_can_be_evaluated_as_a_whole(make, folder):
    data = make(PLAIN, folder=folder)
    batch = next(iter(data.loader("all")))
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert batch["label"].tolist() == [1, 0, 1]
    prefix = "" if folder == "." else "images/"
    truth = data.truth("all")
    assert truth["name"].tolist() == [f"{prefix}{name}" for name in ("a.png", "sub/b.png", "c.png")]
    assert truth["label"].tolist() == ["tumour", "normal", "tumour"]
    with pytest.raises(ManifestError, match="column 'split' is missing; got path, label"):
        data.setup("fit")
    with pytest.raises(ValueError, match="split must be one of train, val, test, all; got 'dev'"):
        data.truth("dev")


def test_images_beside_the_manifest_come_before_those_in_its_folder(make, tmp_path):
    make(PLAIN, folder="images")
    make(PLAIN)
    assert read_tile_manifest(tmp_path / "tiles.csv")["path"][0] == str(tmp_path / "a.png")


def test_a_path_column_comes_before_one_of_files(make, tmp_path):
    data = make("path,file,label\na.png,elsewhere.png,tumour\nb.png,x.png,normal\n")
    assert data.truth("all")["file"].tolist() == ["elsewhere.png", "x.png"]


def test_the_truth_keeps_what_else_is_known(make):
    text = "path,label,split,patient_id,site\n"
    text += "a.png,tumour,val,p1,here\nb.png,normal,train,p2,there\nc.png,normal,val,p3,here\n"
    truth = make(text).truth("val")
    assert truth.columns.tolist() == ["name", "label", "split", "patient_id", "site"]
    assert truth["patient_id"].tolist() == ["p1", "p3"]


def test_the_truth_of_tiles_of_slides_says_where_they_are(cohort, cohort_tiles):
    data = TileDataModule(str(cohort), CLASSES, tiles=str(cohort_tiles), num_workers=0)
    truth, dataset = data.truth("val"), data.dataset("val")
    assert len(truth) == len(dataset)
    assert [CLASSES.index(label) for label in truth["label"]] == dataset.labels.tolist()
    last = truth.iloc[-1]
    slide, _, place = last["name"].rpartition("#")
    assert slide == last["slide_id"]
    x, y = map(float, place.split(","))
    grid = TileGrid.load(cohort_tiles / f"{slide}.parquet")
    tiles = [tile for tile in grid if (tile.box.x, tile.box.y) == (x, y)]
    assert [tile.extra["label"] for tile in tiles] == [last["label"]]
    assert truth["name"].is_unique


MANY = """path,label,split
a.png,tumour;necrosis,train
b.png,none,train
c.png,necrosis ; tumour,train
d.png,stroma,train
e.png,tumour,val
f.png,stroma;necrosis,val
"""
LABELS = ["tumour", "necrosis", "stroma"]


def test_a_tile_may_have_any_number_of_labels(make):
    data = make(MANY, LABELS, outcome="labels")
    batch = next(iter(data.loader("train")))
    expected = [[1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert batch["label"].tolist() == expected
    assert batch["label"].dtype == torch.float32
    labels = data.truth("train")["label"].tolist()
    assert labels == ["tumour;necrosis", "", "tumour;necrosis", "stroma"]
    assert data.class_shares().tolist() == [0.5, 0.5, 0.25]


def test_balance_shows_each_set_of_labels_equally(make):
    data = make(MANY, LABELS, outcome="labels", balance="class", batch_size=1)
    # A third each: both, none, stroma.
    assert data.class_shares() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    loader = data.loader("train", training=True)
    drawn = [tuple(batch["label"][0].int().tolist()) for _ in range(30) for batch in loader]
    counts = pd.Series(drawn).value_counts()
    assert len(counts) == 3
    assert abs(counts / len(drawn) - 1 / 3).max() < 0.1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("a.png,tumour;necrosis", "a.png,tumour;pen"), "label 'pen' is not one of tumour, nec"),
        (("d.png,stroma", "d.png,tumour"), "split 'train' has no tile with label 'stroma'"),
        (("none,train", "necrosis,train"), None),
        (("e.png,tumour", "e.png,tumour;necrosis"), "'val' has no tile without label 'necrosis'"),
        (("none,train", ",train"), "row 3 has no label"),
    ],
)
def test_labels_that_tell_nothing_are_refused(make, change, said):
    data = make(MANY.replace(*change), LABELS, outcome="labels")
    if said is None:
        data.setup("fit")
        return
    with pytest.raises(ManifestError, match=said):
        data.setup("fit")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outcome": "grades"}, "outcome of tiles must be classes or labels"),
        ({"outcome": "labels", "tiles": "t"}, "labels are of image files"),
        ({"outcome": "labels", "classes": ["none", "a"]}, "must not be called none"),
        ({"outcome": "labels", "classes": []}, "at least one name"),
        ({"classes": ["a"]}, "at least two different names"),
    ],
)
def test_wrong_outcomes_are_refused(make, options, said):
    with pytest.raises(ValueError, match=said):
        make(MANY, **{"classes": LABELS} | options)


def test_shares_of_classes_are_those_that_training_draws(make):
    text = "path,label,split\n" + "".join(
        f"{i}.png,{CLASSES[i == 0]},{split}\n" for i, split in enumerate(["train"] * 4)
    )
    assert make(text).class_shares().tolist() == [0.75, 0.25]
    assert make(text, balance="class").class_shares() == pytest.approx([0.5, 0.5])
