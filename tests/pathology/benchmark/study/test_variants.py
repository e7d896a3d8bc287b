"""Networks trained another way: what differs in their tile sets, and nothing else."""

import numpy as np
import pytest
import yaml

from pathology.benchmark.study.variants import COPIES, Variant, fold_of, settings_going_on
from pathology.tasks.checkpoint import Run
from tests.pathology.benchmark.study.made_subject import made_set


@pytest.fixture
def plain():
    return made_set(())


def test_shuffled_labels_are_those_of_others(plain, tmp_path):
    made = Variant("shuffled").make(plain, tmp_path / "set", 0)
    before, after = plain.split("train"), made.split("train")
    assert after.names == before.names
    assert np.array_equal(after.images, before.images)
    assert sorted(after.labels) == sorted(before.labels)
    assert not np.array_equal(after.labels, before.labels)
    assert np.array_equal(made.split("test").labels, plain.split("test").labels)
    other = Variant("shuffled").make(plain, tmp_path / "other", 1)
    assert not np.array_equal(other.split("train").labels, after.labels)
    assert Variant("shuffled").make(plain, tmp_path / "set", 0).stamp == made.stamp


def test_deleted_cells_are_glass_and_the_tiles_themselves_stay(plain, tmp_path):
    made = Variant("deleted4").make(plain, tmp_path / "set", 0).split("train")
    before = plain.split("train")
    count = len(before)
    assert len(made) == (1 + COPIES) * count
    assert np.array_equal(made.images[:count], before.images)
    assert np.array_equal(made.labels, np.tile(before.labels, 1 + COPIES))
    changed = (made.images[count:] != np.tile(before.images, (COPIES, 1, 1, 1))).any(-1)
    cells = changed.reshape(-1, 4, 4, 4, 4).any((2, 4))
    assert 0 < cells.mean() < 0.5
    # Whole cells of one colour.
    colours = made.images[count:][changed]
    assert np.ptp(colours, axis=0).max() == 0
    assert (colours[0] > 200).all()


def test_folds_leave_out_patients(plain, tmp_path):
    before = plain.split("train")
    folds = fold_of(before.patients, 3)
    assert sorted(np.unique(folds)) == [0, 1, 2]
    for patient in set(before.patients):
        mine = [f for f, p in zip(folds, before.patients, strict=True) if p == patient]
        assert len(set(mine)) == 1
    made = Variant("fold1of3").make(plain, tmp_path / "set", 0)
    kept = [n for n, f in zip(before.names, folds, strict=True) if f != 1]
    assert list(made.split("train").names) == kept
    with pytest.raises(ValueError, match="9 folds need as many patients, got 8"):
        fold_of(before.patients, 9)


@pytest.mark.parametrize("name", ["shuffled", "deleted4", "fold0of3"])
def test_no_patient_changes_sides_and_test_tiles_stay(name, plain, tmp_path):
    made = Variant(name).make(plain, tmp_path / "set", 0)
    for split in ("train", "val", "test"):
        assert set(made.split(split).patients) <= set(plain.split(split).patients)
    assert made.split("test").names == plain.split("test").names
    assert np.array_equal(made.split("test").images, plain.split("test").images)
    assert np.array_equal(made.split("test").labels, plain.split("test").labels)


def test_what_goes_on_is_shorter_and_slower_than_what_was_run(tmp_path):
    """Also where nobody said for how long: the run itself did."""
    told = {
        "trainer": {"max_epochs": 5},
        "model": {"lr": 1e-3, "warmup_epochs": 1.0, "bcosify_epochs": None},
    }
    run = Run(tmp_path)
    run.config.write_text(yaml.safe_dump(told))
    found = settings_going_on({"data.batch_size": 8, "model.lr": 1e-3}, run)
    assert found == {
        "data.batch_size": 8,
        "model.init_from": str(run.best),
        "trainer.max_epochs": 3,
        "model.lr": pytest.approx(3e-4),
        "model.warmup_epochs": 0.5,
    }
    told["model"]["bcosify_epochs"] = 2
    run.config.write_text(yaml.safe_dump(told))
    assert settings_going_on({"model.bcosify_epochs": 2}, run)["model.bcosify_epochs"] == 0
