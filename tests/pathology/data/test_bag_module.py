"""Bags by split: what a batch holds, what is drawn, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pathology.data.bag_module import BagDataModule
from pathology.data.bag_sampler import Draw
from pathology.data.bags import GAP_UM, Bags, pad_bags
from pathology.data.features import read_features
from pathology.errors import ManifestError, StampMismatchError
from tests.pathology.made_bags import KIND, write_cohort, write_manifest, write_slide_features

CLASSES = ["normal", "tumour"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("bags"), np.random.default_rng(0))


def make(cohort, **options):
    manifest, features = cohort
    defaults = {"classes": CLASSES, "features": features, "num_workers": 0}
    return BagDataModule(manifest, **defaults | options)


def edited(cohort, tmp_path, **columns):
    """The same cohort with other columns; features where they were."""
    table = pd.read_csv(cohort[0], dtype=str).assign(**columns)
    path = tmp_path / "slides.csv"
    table.to_csv(path, index=False)
    return str(path), cohort[1]


def test_evaluation_shows_each_bag_whole_and_in_order(cohort):
    data = make(cohort)
    truth = data.truth("val")
    batches = list(data.loader("val"))
    assert len(batches) == len(truth) == 8
    for i, (batch, name) in enumerate(zip(batches, truth["name"], strict=True)):
        read = read_features(f"{cohort[1]}/{name}.h5")
        assert torch.equal(batch["features"][0], torch.from_numpy(read.features))
        assert np.allclose(batch["positions"][0], read.positions_um)
        assert batch["present"].all()
        assert batch["index"].item() == i
        assert batch["count"].item() == len(read)
        assert CLASSES[batch["label"].item()] == truth["label"][i]


def test_no_more_tiles_in_evaluation_than_said(cohort):
    (batch, *_) = make(cohort, max_eval_tiles=3).loader("val")
    whole = next(iter(make(cohort).loader("val")))
    assert batch["present"].shape == (1, 3)
    count = whole["count"].item()
    assert batch["count"].item() == count
    chosen = [(2 * i + 1) * count // 6 for i in range(3)]
    assert torch.equal(batch["features"], whole["features"][:, chosen])


def test_batches_are_padded_and_say_where(cohort):
    data = make(cohort)
    samples = [data.dataset("train")[i] for i in range(4)]
    batch = pad_bags(samples)
    longest = max(len(sample["features"]) for sample in samples)
    assert batch["features"].shape == (4, longest, 6)
    for i, sample in enumerate(samples):
        count = len(sample["features"])
        assert batch["present"][i].tolist() == [True] * count + [False] * (longest - count)
        assert torch.equal(batch["features"][i, :count], sample["features"])
        assert not batch["features"][i, count:].any()
        assert not batch["positions"][i, count:].any()


def epochs_of(data, loader, count):
    """Features of every batch, epoch by epoch."""
    return [[batch["features"] for batch in loader] for _ in range(count)]


def test_training_draws_anew_in_every_epoch_and_again_with_the_same_seed(cohort):
    data = make(cohort, max_tiles=3, batch_size=4)
    epochs = epochs_of(data, data.loader("train", training=True), 2)
    assert all(batch.shape == (4, 3, 6) for epoch in epochs for batch in epoch)
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    again = make(cohort, max_tiles=3, batch_size=4)
    for a, b in zip(epochs, epochs_of(again, again.loader("train", training=True), 2), strict=True):
        assert torch.equal(torch.cat(a), torch.cat(b))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_sees_the_rest_of_the_epoch(cohort, workers):
    data = make(cohort, max_tiles=3, batch_size=4)
    wanted = epochs_of(data, data.loader("train", training=True), 2)
    first = make(cohort, max_tiles=3, batch_size=4)
    loader = first.train_dataloader()
    batches = iter(loader)
    next(batches)
    state = first.state_dict()
    resumed = make(cohort, max_tiles=3, batch_size=4, num_workers=workers)
    resumed.load_state_dict(state)
    loader = resumed.train_dataloader()
    rest, following = epochs_of(resumed, loader, 2)
    assert torch.equal(torch.cat(rest), torch.cat(wanted[0][1:]))
    assert torch.equal(torch.cat(following), torch.cat(wanted[1]))


def test_dropout_leaves_tiles_out_of_training_only(cohort):
    data = make(cohort, tile_dropout=0.5)
    bags = data.dataset("train")
    for i in range(4):
        sample = bags[Draw(i, 0, 0)]
        assert len(sample["features"]) == max(1, round(0.5 * sample["count"]))
        assert len(bags[i]["features"]) == sample["count"]


def test_bags_of_patients_join_their_slides(cohort, tmp_path):
    table = pd.read_csv(cohort[0], dtype=str)
    data = make(cohort, bag="patient", outcome="labels", classes=["x"], label_column="site")
    data.manifest = edited(cohort, tmp_path, site=["x"] * len(table))[0]
    truth, bags = data.truth("val"), data.dataset("val")
    assert len(truth) == len(bags) == 4
    names = truth["slide_id"][0].split(";")
    parts = [read_features(f"{cohort[1]}/{name}.h5") for name in names]
    sample = bags[0]
    assert torch.equal(
        sample["features"], torch.from_numpy(np.concatenate([part.features for part in parts]))
    )
    second = sample["positions"][len(parts[0]) :].numpy()
    assert np.allclose(second[:, 0] - GAP_UM, parts[1].positions_um[:, 0], atol=0.01)
    # A draw takes tiles of either slide, from the right one.
    data.max_tiles = 6
    drawn = make(cohort, bag="patient", outcome="labels", classes=["x"], label_column="site")
    drawn.manifest, drawn.max_tiles = data.manifest, 6
    few = drawn.dataset("val")[Draw(0, 0, 0)]
    whole = {tuple(row) for row in sample["features"].tolist()}
    assert len(few["features"]) == 6
    assert {tuple(row) for row in few["features"].tolist()} <= whole


def test_every_outcome_gives_its_targets(cohort):
    wanted = {
        ("classes", "label"): CLASSES,
        ("labels", "findings"): ["a", "b"],
        ("grades", None): ["none", "few", "many"],
        ("cox", None): [],
        ("hazard", None): [],
    }
    for (outcome, column), classes in wanted.items():
        data = make(cohort, outcome=outcome, classes=classes, label_column=column)
        data.setup("fit")
        batch = next(iter(data.loader("train", training=True)))
        keys = {"classes": "label", "labels": "label", "grades": "grade"}.get(outcome)
        for name in [keys] if keys else ["time", "event"]:
            assert len(batch[name]) == 8


def test_without_splits_there_is_all(cohort, tmp_path):
    table = pd.read_csv(cohort[0], dtype=str).drop(columns="split")
    table.to_csv(tmp_path / "slides.csv", index=False)
    data = make((str(tmp_path / "slides.csv"), cohort[1]))
    assert len(data.truth("all")) == len(data.dataset("all")) == 32
    with pytest.raises(ManifestError, match="column 'split' is missing"):
        data.rows("test")


def test_all_is_every_split(cohort):
    data = make(cohort)
    assert len(data.truth("all")) == sum(len(data.truth(s)) for s in ("train", "val", "test"))


def test_classes_come_equally_often_if_asked(cohort, tmp_path):
    labels = ["tumour"] * 2 + ["normal"] * 14 + CLASSES * 8
    data = make(edited(cohort, tmp_path, label=labels), balance="class", batch_size=4)
    shown = torch.cat([batch["label"] for batch in data.loader("train", training=True)])
    assert shown.sum() == 8
    patients = make(cohort, balance="patient")
    assert len(list(patients.sampler("train"))) == 16


# --- refusals -------------------------------------------------------------------------------------


def test_a_slide_without_features(cohort, tmp_path):
    table = pd.read_csv(cohort[0], dtype=str)
    table.loc[3, "slide_id"] = "unseen"
    table.to_csv(tmp_path / "slides.csv", index=False)
    with pytest.raises(ManifestError, match=r"unseen\.h5"):
        make((str(tmp_path / "slides.csv"), cohort[1])).setup("fit")


def test_features_of_two_encoders(tmp_path, rng):
    values = rng.normal(size=(4, 6))
    for name, encoder in (("a", "one"), ("b", "one"), ("c", "two"), ("d", "two")):
        write_slide_features(tmp_path / "f", name, values, replace(KIND, encoder=encoder))
    rows = [
        {"slide_id": name, "split": split, "label": label}
        for name, split, label in zip(
            "abcd", ("train", "train", "val", "val"), CLASSES * 2, strict=True
        )
    ]
    manifest = write_manifest(tmp_path / "slides.csv", rows)
    with pytest.raises(StampMismatchError, match="encoder"):
        make((manifest, str(tmp_path / "f"))).setup("fit")


def test_a_bag_without_tiles():
    with pytest.raises(ManifestError, match=r"1 bags have no tiles \(b\)"):
        Bags([[0], [1]], [3, 0], ["a", "b"], {}, most=None)
    assert Bags([[0, 1]], [3, 0], ["a"], {}, most=None).sizes.tolist() == [3]


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        ({"label": "normal"}, {}, "split 'train' has only bags of 'normal'"),
        ({"event": "0"}, {"outcome": "cox", "classes": []}, "split 'train' has no event"),
        (
            {"grade": "1"},
            {"outcome": "grades", "classes": list("012")},
            "'train' has a single grade",
        ),
        (
            {"time": "3", "event": "1"},
            {"outcome": "cox", "classes": []},
            "outlives the first event",
        ),
    ],
)
def test_splits_that_teach_or_measure_nothing(cohort, tmp_path, column, options, message):
    with pytest.raises(ManifestError, match=message):
        make(edited(cohort, tmp_path, **column), **options).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": None}, "either features or tiles"),
        ({"tiles": "t"}, "either features or tiles"),
        ({"stains": "s"}, "stains are of pixels"),
        ({"max_tiles": 0}, "max_tiles must be at least 1"),
        ({"max_eval_tiles": 0}, "max_eval_tiles must be at least 1"),
        ({"tile_dropout": 1.0}, "tile_dropout"),
        ({"batch_size": 0}, "batch_size"),
        ({"bag": "case"}, "bag must be one of slide, patient"),
        ({"balance": "slide"}, "balance must be one of"),
        ({"outcome": "class"}, "outcome must be one of"),
    ],
)
def test_nonsense_is_refused(cohort, options, message):
    with pytest.raises(ValueError, match=message):
        make(cohort, **options)


def test_a_digest_of_manifest_and_features(cohort, tmp_path, rng):
    before = make(cohort).digest()
    assert make(cohort).digest() == before
    assert make(edited(cohort, tmp_path, site="x")).digest() != before


def test_a_test_split_may_lack_labels_and_features(cohort, tmp_path):
    table = pd.read_csv(cohort[0], dtype=str)
    is_test = table["split"] == "test"
    names = table["slide_id"].mask(is_test, "later_" + table["slide_id"])
    data = make(edited(cohort, tmp_path, label=table["label"].mask(is_test), slide_id=names))
    data.setup("fit")
    assert data.digest()
    with pytest.raises(ManifestError, match="8 rows have no label"):
        data.dataset("test")
