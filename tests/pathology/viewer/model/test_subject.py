"""Explanations on disk, with their runs: the same numbers again, or a line of what is not."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile

from pathology.api import explain_slide, load_run, open_slide
from pathology.errors import ManifestError, StampMismatchError
from pathology.metrics import Calibration
from pathology.tiling import TileGrid
from pathology.viewer.model.question import (
    Explained,
    MaskQuestion,
    Means,
    TileQuestion,
    record_hash,
)
from pathology.viewer.model.weights import digest_of, wanted
from pathology.viewer.model.worker.ask_mask import ask_mask
from pathology.viewer.model.worker.ask_tile import ask_tile
from pathology.viewer.model.worker.subject import Subjects
from tests.made_run import write_run
from tests.pathology.viewer.model.made_subject import silent

# A grid's tiles are of 1 um pixels, the slide's are 0.5 x 0.41 um.
AROUND = ((300.0, 200.0), (520.0, 210.0), (480.0, 420.0), (320.0, 400.0))


@pytest.fixture(scope="module")
def means(runs_folder):
    runs = [runs_folder / name for name in ("cnn", "vit")]
    return Means({digest_of(run): str(run) for run in runs}, device="cpu")


@pytest.fixture(scope="module")
def subjects():
    return Subjects()


@pytest.fixture(scope="module")
def get(subjects, means):
    def get(folder, slide):
        return subjects.get(Explained(folder, slide), means, lambda what: None)

    return get


@pytest.fixture
def copied(tmp_path, results_folder, slides_folder, runs_folder):
    """An explanation of its own to spoil: its folder, slide and run, and getting it."""
    folder = tmp_path / "case_1" / "tumour"
    shutil.copytree(results_folder / "cnn" / "case_1" / "tumour", folder)
    slide = shutil.copy(slides_folder / "case_1.tif", tmp_path / "case_1.tif")
    run = shutil.copytree(runs_folder / "cnn", tmp_path / "cnn")
    means = Means({digest_of(run): str(run)}, device="cpu")

    def get(**changed):
        path = folder / "explanation.json"
        record = json.loads(path.read_text())
        record["settings"] |= changed
        path.write_text(json.dumps(record))
        return Subjects().get(Explained(folder, slide), means, lambda what: None)

    return folder, slide, run, get


@pytest.mark.parametrize("name", ["tumour", "tumour_minus_normal"])
def test_every_tile_has_the_numbers_that_are_stored(get, results_folder, slides_folder, name):
    folder = results_folder / "cnn" / "case_1" / name
    subject = get(folder, slides_folder / "case_1.tif")
    assert subject.tiles["positive"].isna().any()
    for index in range(0, len(subject.tiles), 41):
        result = ask_tile(subject, TileQuestion(index), silent).result
        assert not result["check"]["differs"]
        row = subject.tiles.loc[index]
        assert result["maps"][0]["sum"] == pytest.approx(
            row["weight"] * row["contribution"], abs=result["check"]["tolerance"]
        )


def test_members_of_a_mean_are_told_apart(
    get, results_folder, slides_folder, runs_folder, tiles_folder, tmp_path
):
    subject = get(results_folder / "vit" / "case_1" / "tumour", slides_folder / "case_1.tif")
    assert [member.share for member in subject.members] == [0.5, 0.5]
    last = len(subject.tiles) - 1
    for index in (0, last):
        answer = ask_tile(subject, TileQuestion(index), silent).result
        assert not answer["check"]["differs"]
        row = subject.tiles.loc[index]
        assert answer["box"][:2] == [row["x"], row["y"]]
        assert answer["maps"][0]["weight"] == pytest.approx(row["weight"])
        assert any("a mean of 2" in note for note in answer["notes"])
    result = ask_mask(subject, MaskQuestion(((AROUND,),)), silent).result
    assert not result["score"]["differs"]

    # A slide that is painted itself, explained as this was; pixels on the outline are resampled.
    array = tifffile.imread(slides_folder / "case_1.tif")
    x, y = np.meshgrid(np.arange(array.shape[1]) + 0.5, np.arange(array.shape[0]) + 0.5)
    array[shapely.contains_xy(shapely.Polygon(AROUND), x, y)] = 255
    path = tmp_path / "case_1.tif"
    tifffile.imwrite(
        path, array, tile=(128, 128), photometric="rgb", compression="zlib",
        resolution=(1e4 / 0.5, 1e4 / 0.41), resolutionunit="CENTIMETER",
    )  # fmt: skip
    with open_slide(path) as slide:
        grid = TileGrid.load(tiles_folder / "case_1.parquet")
        grid = replace(grid, source=replace(grid.source, stamp=slide.stamp()))
        run = load_run(runs_folder / "vit", device="cpu")
        real = explain_slide(slide, grid, run, "tumour", jitter=2, out_mpp=4, quiet=True)
    assert abs(result["change"]) > 1e-3
    assert result["real"] == pytest.approx(real.logit, abs=0.05 * abs(result["change"]))


def test_members_that_are_runs_have_each_their_own_weights(
    slides_folder, runs_folder, tiles_folder, tmp_path, monkeypatch
):
    # Figures for papers take the most time, and hold no numbers.
    monkeypatch.setattr("pathology.explain.results.write.write_figure", lambda *_: None)
    small = {"model": "bcos_vit_tiny_patch16_224", "model_args": {"img_size": 32, "depth": 1}}
    paths = [runs_folder / "vit", write_run(tmp_path / "other", mpp=1.0, seed=5, **small)]
    runs = [load_run(path, device="cpu") for path in paths]
    slide, folder = slides_folder / "case_1.tif", tmp_path / "case_1" / "tumour"
    grid = TileGrid.load(tiles_folder / "case_1.parquet").select(np.arange(20, 32))
    with open_slide(slide) as opened:
        options = {"members": runs[1:], "jitter": 2, "out_mpp": 8, "quiet": True}
        explain_slide(opened, grid, runs[0], "tumour", **options).save(folder)
    by_hash = {digest_of(path): str(path) for path in paths}
    record = json.loads((folder / "explanation.json").read_text())
    assert wanted(record) == list(by_hash)
    means = Means(by_hash, device="cpu")
    subject = Subjects().get(Explained(folder, slide), means, lambda what: None)
    assert [member.share for member in subject.members] == [0.25] * 4
    for index in (0, len(grid), 2 * len(grid), 4 * len(grid) - 1):
        assert not ask_tile(subject, TileQuestion(index), silent).result["check"]["differs"]
    result = ask_mask(subject, MaskQuestion(((AROUND,),)), silent).result
    assert not result["score"]["differs"]
    assert result["tiles"]["all"] == 4 * len(grid)


def test_what_was_asked_about_last_stays_loaded(subjects, get, results_folder, slides_folder):
    folder, slide = results_folder / "cnn" / "case_1" / "tumour", slides_folder / "case_1.tif"
    assert get(folder, slide) is get(folder, slide)
    assert len(subjects._subjects) <= 2


def test_another_explanation_in_the_same_place(copied, means):
    folder, slide, *_ = copied
    record = json.loads((folder / "explanation.json").read_text())
    shown = Explained(folder, slide, record_hash(record))
    assert Subjects().get(shown, means, lambda what: None).members
    record["settings"]["out_mpp"] = 99.0
    (folder / "explanation.json").write_text(json.dumps(record))
    with pytest.raises(StampMismatchError, match="another explanation than the one that is shown"):
        Subjects().get(shown, means, lambda what: None)


def test_another_slide(copied):
    _, slide, _, get = copied
    array = tifffile.imread(slide)
    array[:64] = 0
    tifffile.imwrite(
        slide, array, tile=(128, 128), photometric="rgb", compression="zlib",
        resolution=(1e4 / 0.5, 1e4 / 0.41), resolutionunit="CENTIMETER",
    )  # fmt: skip
    with pytest.raises(StampMismatchError, match=r"not the slide that was explained, .* is \w{16}"):
        get()


def test_weights_that_have_changed_since_the_viewer_was_started(copied):
    *_, run, get = copied
    path = run / "checkpoints" / "best.ckpt"
    wanted = digest_of(run)
    path.write_bytes(path.read_bytes() + b"more")
    now = digest_of(run)
    with pytest.raises(StampMismatchError, match=f"its weights are {now} now, .* {wanted};"):
        get()


def test_a_calibration_that_is_another_now(copied):
    _, _, run, get = copied
    calibration = Calibration(
        ["normal", "tumour"], "sigmoid", [2.0, 4.0], [0.0, 0.5], {}, "none", digest_of(run), "val",
        "0", 8,
    )  # fmt: skip
    calibration.save(run / "calibration.json")
    with pytest.raises(StampMismatchError, match=r"calibration is .* the explanation was made"):
        get(calibration={"temperatures": {"normal": 3.0, "tumour": 4.0}})
    assert get(calibration=calibration.numbers()).members


def test_a_pooling_that_the_run_does_not_have(copied):
    get = copied[-1]
    with pytest.raises(ValueError, match="pooling must be"):
        get(pooling="median")


def test_tiles_of_another_kind(copied):
    folder, *_, get = copied
    spec = json.loads((folder / "explanation.json").read_text())["settings"]["tiles"]
    with pytest.raises(StampMismatchError, match=r"the model was trained on 32 px at 1\.0 um/px"):
        get(tiles=spec | {"mpp": 0.5})


def test_a_table_that_does_not_fit_its_record(copied):
    folder, *_, get = copied
    table = pd.read_parquet(folder / "tiles.parquet")
    table.assign(member=1).to_parquet(folder / "tiles.parquet")
    with pytest.raises(ManifestError, match="not the table of 1 members"):
        get()


def test_a_table_that_is_gone(copied):
    folder, *_, get = copied
    (folder / "tiles.parquet").unlink()
    with pytest.raises(ManifestError, match=r"tiles.parquet cannot be read"):
        get()
