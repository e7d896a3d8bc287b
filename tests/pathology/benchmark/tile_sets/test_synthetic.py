"""Tiles of synthetic slides."""

from pathlib import Path

import numpy as np
import pytest

from pathology.benchmark.tile_sets import TileSet, make_maker, make_tile_set, synthetic
from pathology.synthetic import SyntheticSlideSpec, render

SETTINGS = {
    "kind": "synthetic",
    "tiles": {"train": 12, "val": 4, "test": 8},
    "size_px": 32,
    "per_patient": 4,
}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TileSet:
    return make_tile_set(SETTINGS, tmp_path_factory.mktemp("sets") / "plain")


def test_numbers_are_as_asked_for_and_classes_equal(made: TileSet) -> None:
    counts = made.table.groupby(["split", "label"]).size().to_dict()
    for split, count in SETTINGS["tiles"].items():  # type: ignore[attr-defined]
        assert counts[split, "normal"] == counts[split, "tumour"] == count // 2


def test_no_patient_is_in_two_splits(made: TileSet) -> None:
    splits = made.table.groupby("patient_id")["split"].nunique()
    assert len(splits) == 6
    assert (splits == 1).all()


def test_patients_have_both_classes(made: TileSet) -> None:
    """Else the patient's stain would tell the class."""
    assert (made.table.groupby("patient_id")["label"].nunique() == 2).all()


def test_labels_keep_their_margin(made: TileSet) -> None:
    for split in SPLITS:
        examples = made.split(split)
        region = examples.masks["region"].mean((1, 2))
        assert (region[examples.labels == 1] >= 0.5).all()
        assert (region[examples.labels == 0] == 0).all()
        nuclei = np.where(
            examples.labels == 1,
            examples.masks["evidence"].mean((1, 2)),
            examples.masks["other"].mean((1, 2)),
        )
        assert (nuclei >= 0.05).all()
        assert not examples.masks["evidence"][examples.labels == 0].any()


def test_pixels_and_masks_are_those_of_the_slide(made: TileSet) -> None:
    test = made.split("test")
    for i in (0, 3):
        patient, x, y = (int(word) for word in test.names[i].split("_")[1:])
        # Of test patients: the third hundred thousand of the seed's million.
        spec = SyntheticSlideSpec(200_000 + patient, (512, 512), 1.0, 0.5)
        there = render(spec, x, y, 32, 32)
        np.testing.assert_array_equal(test.images[i], there.rgb)
        np.testing.assert_array_equal(test.masks["evidence"][i], there.evidence == 2)
        np.testing.assert_array_equal(test.masks["other"][i], there.evidence == 1)
        np.testing.assert_array_equal(test.masks["region"][i], there.regions == 2)


def test_the_first_tiles_are_of_many_patients(made: TileSet) -> None:
    """Studies explain the first few."""
    train = made.split("train")
    assert len(set(train.patients[:6])) == 3
    assert set(train.labels[:2]) == {0, 1}


def test_a_set_is_the_same_by_seed_and_made_once(made: TileSet, tmp_path: Path) -> None:
    again = make_tile_set(SETTINGS, tmp_path / "again")
    assert again.table.equals(made.table)
    np.testing.assert_array_equal(again.split("val").images, made.split("val").images)
    before = (again.folder / "manifest.csv").stat().st_mtime_ns
    assert make_tile_set(SETTINGS, tmp_path / "again").stamp == made.stamp
    assert (again.folder / "manifest.csv").stat().st_mtime_ns == before


def test_what_no_tile_meets_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "BARREN", 2)
    maker = make_maker(SETTINGS | {"least_nuclei": 0.9})
    with pytest.raises(ValueError, match=r"of 2 patients none has a tile of 32 px at 1\.0"):
        next(maker.make())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "synthetik"}, "must be one of synthetic, folder, nuclei; got 'synthetik'"),
        ({"tile": 3}, "no setting 'tile'; did you mean tiles"),
        ({"tiles": {"train": 5}}, "numbers of train, val and test"),
        ({"confounder": "pencil"}, "confounder must be one of pen, tint, blur, got 'pencil'"),
        ({"correlation": 2.0}, "must be 0 to 1"),
        ({"size_px": 4}, "size_px must be at least 16"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_made(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_maker(SETTINGS | change)
