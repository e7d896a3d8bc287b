"""Fitting stains, and training, evaluating and explaining on what they make of tiles."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pathology.cli import main
from pathology.errors import StampMismatchError
from pathology.slides import open_slide
from pathology.stain import StainFolder, StainProfile, reference_profile
from pathology.synthetic import SyntheticSlideSpec, render
from tests.pathology.viewer.model.asked import asked


def stain_arguments(cohort, tiles, out, *more):
    return ["stain", "--slides", cohort, "--tiles", tiles, "--out", out, "--count", "8", *more]


def train_arguments(cohort, tiles, run, *more):
    return [
        "train", "--out", run, "--model.model", "bcos_vit_tiny_patch16_224",
        "--model.model_args", "{img_size: 64, depth: 1}", "--data.manifest", cohort,
        "--data.tiles", tiles, "--data.classes", "[normal, tumour]",
        "--data.batch_size", "32", "--data.num_workers", "0", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", *more,
    ]  # fmt: skip


def explain_arguments(run, slide, tiles, out, *more):
    return [
        "explain", "--run", run, "--slides", slide, "--tiles", tiles, "--out", out,
        "--device", "cpu", "--target", "tumour", "--depth", "head", *more,
    ]  # fmt: skip


def run(arguments):
    return main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def stains(cohort, cohort_tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("stains")
    assert run(stain_arguments(cohort, cohort_tiles, out)) == 0
    return out


@pytest.fixture(scope="module")
def other_stains(cohort, cohort_tiles, tmp_path_factory):
    """The same slides, normalised to one of them."""
    out = tmp_path_factory.mktemp("other")
    assert run(stain_arguments(cohort, cohort_tiles, out, "--target", "train_000")) == 0
    return out


@pytest.fixture(scope="module")
def trained(cohort, cohort_tiles, stains, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "vit"
    more = ["--data.stains", stains, "--data.augment", "{turns: true, stain: 0.3}"]
    assert run(train_arguments(cohort, cohort_tiles, folder, *more)) == 0
    return folder


# --- fitting


def test_every_slide_has_a_profile_and_a_place_on_the_page(stains):
    names = {"train_000", "val_000", "test_000"}
    assert {p.stem for p in stains.glob("*.json")} == {"target", *names}
    assert StainFolder(stains).target == reference_profile("macenko")
    assert StainProfile.load(stains / "val_000.json").source.pixels > 10_000
    page = (stains / "sheet.html").read_text(encoding="utf-8")
    assert all(f"<h3>{name}</h3>" in page for name in names)
    assert page.count(">before<") == page.count(">after<") == 3
    assert ">full<" in page


def test_fitting_again_skips_and_goes_on_where_it_was(pathology, stains, cohort, cohort_tiles):
    before = (stains / "val_000.json").stat().st_mtime_ns
    (stains / "test_000.json").unlink()
    code, out, _ = pathology(*stain_arguments(cohort, cohort_tiles, stains))
    assert (code, out.count("made before by the same settings")) == (0, 2)
    assert (stains / "val_000.json").stat().st_mtime_ns == before
    assert (stains / "test_000.json").is_file()


def test_the_same_with_workers(pathology, stains, cohort, cohort_tiles, tmp_path):
    code, _, _ = pathology(*stain_arguments(cohort, cohort_tiles, tmp_path, "--workers", "2"))
    assert code == 0
    for name in ("target", "train_000", "val_000", "test_000"):
        assert (tmp_path / f"{name}.json").read_bytes() == (stains / f"{name}.json").read_bytes()


@pytest.mark.parametrize("method", ["vahadane", "reinhard"])
def test_other_methods_make_slides_alike(pathology, cohort, cohort_tiles, tmp_path, method):
    arguments = stain_arguments(cohort, cohort_tiles, tmp_path, "--method", method)
    assert pathology(*arguments, "--target", "val_000")[0] == 0
    folder = StainFolder(tmp_path)
    assert folder.target == StainProfile.load(tmp_path / "val_000.json")
    with open_slide(cohort.parent / "test_000.tif") as slide:
        profile = folder.profile("test_000", slide.stamp(), "stored")
    assert profile.method == method


def test_an_image_can_be_the_target(pathology, refused, cohort, cohort_tiles, tmp_path):
    pixels = render(SyntheticSlideSpec(5, (512, 512)), 0, 0, 512, 512).rgb
    Image.fromarray(pixels).save(tmp_path / "atlas.png")
    Image.fromarray(np.full((64, 64, 3), 245, np.uint8)).save(tmp_path / "blank.png")
    out = tmp_path / "out"
    arguments = stain_arguments(cohort, cohort_tiles, out)
    line = refused(*arguments, "--target", tmp_path / "blank.png")
    assert "blank.png: too little stain" in line
    assert pathology(*arguments, "--target", tmp_path / "atlas.png")[0] == 0
    assert StainFolder(out).target.name == "atlas.png"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "1"], "fitted with other settings"),
        (["--method", "vahadane"], "target.json: holds a stain profile fitted with method macenko"),
        (["--target", "train_000"], "asked for train_000 by macenko"),
        (["--target", "nothing.png"], "neither the slide_id of a slide"),
        (["--count", "0"], "tiles must be positive"),
        (["--white", "300"], "white must be in (1, 255]"),
    ],
)
def test_another_fit_in_the_same_folder_is_refused(
    refused, stains, cohort, cohort_tiles, more, said
):
    assert said in refused(*stain_arguments(cohort, cohort_tiles, stains, *more))


def test_slides_fitted_otherwise_do_not_join(refused, stains, cohort, cohort_tiles):
    """Not even new ones, beside published numbers that were not fitted at all."""
    kept = (stains / "test_000.json").read_bytes()
    (stains / "test_000.json").unlink()
    try:
        slide = cohort.parent / "test_000.tif"
        line = refused(*stain_arguments(slide, cohort_tiles, stains, "--white", "glass"))
        assert "fitted with other settings" in line
        assert not (stains / "test_000.json").exists()
    finally:
        (stains / "test_000.json").write_bytes(kept)


def test_the_target_of_other_slides_can_be_used_without_them(
    pathology, refused, other_stains, cohort, cohort_tiles, tmp_path
):
    target = other_stains / "target.json"
    slide = cohort.parent / "test_000.tif"
    arguments = stain_arguments(slide, cohort_tiles, tmp_path, "--target", target)
    assert "is of method macenko" in refused(*arguments, "--method", "vahadane")
    assert pathology(*arguments, "--seed", "3")[0] == 0
    assert (tmp_path / "target.json").read_bytes() == target.read_bytes()
    assert StainProfile.load(tmp_path / "test_000.json").settings.seed == 3


def test_a_slide_damaged_where_it_was_not_looked_at_is_listed_without_tiles(
    pathology, stains, cohort, cohort_tiles, tmp_path, monkeypatch
):
    from pathology.cli import stain
    from pathology.errors import SlideOpenError

    shown = stain._shown

    def damaged(fit, row, profile, target):
        if row["slide_id"] == "val_000":
            raise SlideOpenError("damaged", row["path"])
        return shown(fit, row, profile, target)

    monkeypatch.setattr(stain, "_shown", damaged)
    shutil.copytree(stains, tmp_path / "stains")
    assert pathology(*stain_arguments(cohort, cohort_tiles, tmp_path / "stains"))[0] == 0
    page = (tmp_path / "stains" / "sheet.html").read_text(encoding="utf-8")
    assert "3 slides, of which 2 are shown" in page
    assert ">val_000</h3>" in page


def test_reinhard_needs_a_target(refused, cohort, cohort_tiles, tmp_path):
    line = refused(*stain_arguments(cohort, cohort_tiles, tmp_path, "--method", "reinhard"))
    assert "--target: Reinhard's method has no published reference" in line


def test_a_slide_called_target_is_refused(refused, cohort, cohort_tiles, tmp_path):
    shutil.copy(cohort.parent / "test_000.tif", tmp_path / "target.tif")
    line = refused(*stain_arguments(tmp_path / "target.tif", cohort_tiles, tmp_path / "out"))
    assert "a slide is called 'target'" in line


def test_a_profile_of_other_tiles_is_refused(refused, stains, cohort, cohort_tiles, tmp_path):
    tiles = ["tile", "--slides", cohort, "--out", tmp_path / "tiles", "--size-px", "96"]
    assert run(tiles) == 0
    line = refused(*stain_arguments(cohort, tmp_path / "tiles", stains))
    assert "fitted with other tiles" in line


def test_a_slide_without_stain_stops_or_is_listed(refused, pathology, cohort, tmp_path):
    import tifffile

    slides = tmp_path / "slides"
    slides.mkdir()
    shutil.copy(cohort.parent / "test_000.tif", slides / "good.tif")
    blank = np.full((512, 512, 3), 244, np.uint8)
    tifffile.imwrite(
        slides / "blank.tif", blank, tile=(128, 128), photometric="rgb",
        resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    tiles = ["tile", "--slides", slides, "--out", tmp_path / "tiles", "--size-px", "64"]
    assert run([*tiles, "--min-tissue", "0"]) == 0
    arguments = stain_arguments(slides, tmp_path / "tiles", tmp_path / "out")
    assert "slide 'blank': too little stain" in refused(*arguments)
    code, out, _ = pathology(*arguments, "--keep-going")
    assert (code, "1 of 2 slides failed" in out) == (3, True)
    assert pd.read_csv(tmp_path / "out" / "failures.csv")["slide_id"].tolist() == ["blank"]
    assert (tmp_path / "out" / "good.json").is_file()
    assert not (tmp_path / "out" / "blank.json").exists()
    assert ">good</h3>" in (tmp_path / "out" / "sheet.html").read_text(encoding="utf-8")


# --- using them


def test_tiles_are_trained_on_as_the_target_shows_them(trained, stains, cohort, cohort_tiles):
    from pathology.data.modules import TileDataModule
    from pathology.tasks.checkpoint import Run
    from pathology.tiling import TileGrid

    arguments = Run(trained).data_arguments()
    assert arguments["stains"] == str(stains)
    dataset = TileDataModule(**arguments).dataset("val")
    folder = StainFolder(stains)
    grid = TileGrid.load(cohort_tiles / "val_000.parquet")
    grid = grid.select(np.isin(grid.columns["label"], ["normal", "tumour"]))
    with open_slide(cohort.parent / "val_000.tif") as slide:
        pixels = slide.read(grid[3].box, grid.spec.mpp)
        profile = folder.profile("val_000", slide.stamp(), "stored")
    tile = torch.from_numpy(pixels).permute(2, 0, 1)
    normalised = folder.normaliser()(tile[None], profile)[0]
    assert torch.equal(dataset[3]["image"], normalised)
    assert not torch.equal(normalised, tile)
    origin = json.loads((trained / "made_from.json").read_text())
    assert origin["stain"] == folder.target.digest()


def test_evaluation_and_explanation_see_the_same_logits(
    pathology, trained, cohort, cohort_tiles, stains, tmp_path
):
    code, _, err = pathology("evaluate", "--run", trained, "--split", "test", "--device", "cpu")
    assert code == 0, err
    slide = cohort.parent / "test_000.tif"
    code, _, err = pathology(*explain_arguments(trained, slide, cohort_tiles, tmp_path))
    assert code == 0, err
    folder = tmp_path / "test_000" / "tumour"
    explained = pd.read_parquet(folder / "tiles.parquet")
    table = pd.read_parquet(cohort_tiles / "test_000.parquet")
    kept = table["label"].isin(["normal", "tumour"]).to_numpy()
    evaluated = pd.read_parquet(trained / "evaluation" / "test.parquet")
    # float32, in other batches
    np.testing.assert_allclose(
        explained["logit_tumour"].to_numpy()[kept], evaluated["logit_tumour"], atol=1e-4
    )
    settings = json.loads((folder / "explanation.json").read_text())["settings"]
    assert settings["stain"]["target"] == StainFolder(stains).target.digest()
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "normalised by macenko to published reference" in report


def test_the_model_is_asked_again_on_what_it_saw(
    pathology, trained, cohort, cohort_tiles, stains, tmp_path
):
    slide = cohort.parent / "test_000.tif"
    assert pathology(*explain_arguments(trained, slide, cohort_tiles, tmp_path))[0] == 0
    folder = tmp_path / "test_000" / "tumour"
    table = pd.read_parquet(folder / "tiles.parquet")
    index = int((table["weight"] * table["contribution"]).abs().idxmax())
    x, y = table.loc[index, ["x", "y"]]
    tile, without = asked(folder, slide, trained, index, (x + 5, y + 5, x + 100, y + 60))
    assert not tile.result["check"]["differs"]
    assert tile.parts[tile.result["normalised"]] != tile.parts[tile.result["tile"]]
    assert not without["score"]["differs"]
    assert without["change"] != 0
    # Another profile of the slide is another picture for the model.
    shutil.copytree(stains, tmp_path / "stains")
    profile = json.loads((tmp_path / "stains" / "test_000.json").read_text())
    profile["amounts"] = [1.5 * each for each in profile["amounts"]]
    (tmp_path / "stains" / "test_000.json").write_text(json.dumps(profile))
    with pytest.raises(StampMismatchError, match=r"the stain profile of slide test_000 is \w{16}"):
        asked(folder, slide, trained, stains=tmp_path / "stains")


def test_another_target_or_none_is_refused(
    refused, trained, cohort, cohort_tiles, stains, other_stains, tmp_path
):
    slide = cohort.parent / "test_000.tif"
    line = refused(
        *explain_arguments(trained, slide, cohort_tiles, tmp_path, "--stains", other_stains)
    )
    assert "normalised to train_000 by macenko, the model was trained with another target" in line
    other = ["--split", "test", "--manifest", cohort, "--tiles", cohort_tiles, "--device", "cpu"]
    evaluate = ["evaluate", "--run", trained, "--out", tmp_path / "e", *other]
    assert "give --stains" in refused(*evaluate)
    assert "another target" in refused(*evaluate, "--stains", other_stains)
    assert run([*evaluate, "--stains", stains]) == 0


def test_a_missing_profile_is_refused(refused, trained, cohort, cohort_tiles, stains, tmp_path):
    shutil.copytree(stains, tmp_path / "stains")
    (tmp_path / "stains" / "test_000.json").unlink()
    slide = cohort.parent / "test_000.tif"
    arguments = explain_arguments(trained, slide, cohort_tiles, tmp_path / "x")
    line = refused(*arguments, "--stains", tmp_path / "stains")
    assert "no stain profile of slide 'test_000'" in line
    shutil.copy(stains / "val_000.json", tmp_path / "stains" / "test_000.json")
    line = refused(*arguments, "--stains", tmp_path / "stains")
    assert "fitted on another slide" in line


def test_options_of_another_manifest_are_not_passed_over(refused, trained, other_stains):
    line = refused("evaluate", "--run", trained, "--split", "test", "--stains", other_stains)
    assert "--stains is of another manifest; give --manifest" in line


def test_tiles_in_another_colour_than_trained_on_are_refused(
    refused, trained, cohort, cohort_tiles, tmp_path
):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "made_from.json"
    origin = json.loads(path.read_text())
    assert origin["colour"] == "stored"
    path.write_text(json.dumps(origin | {"colour": "srgb"}))
    slide = cohort.parent / "test_000.tif"
    said = "in stored colours, the model was trained on 64 px at 0.5 um/px in srgb colours"
    assert said in refused(*explain_arguments(path.parent, slide, cohort_tiles, tmp_path / "x"))
    evaluate = ["evaluate", "--run", path.parent, "--split", "test", "--device", "cpu"]
    assert said in refused(*evaluate)


def test_a_checkpoint_by_itself_knows_its_tiles_and_stains(
    refused, pathology, trained, cohort, cohort_tiles, stains, tmp_path
):
    alone = tmp_path / "models" / "mine.ckpt"
    alone.parent.mkdir()
    shutil.copy(trained / "checkpoints" / "best.ckpt", alone)
    slide = cohort.parent / "test_000.tif"
    arguments = explain_arguments(alone, slide, cohort_tiles, tmp_path / "x")
    assert "the model was trained on normalised tiles of slides; give --stains" in refused(
        *arguments
    )
    assert pathology(*arguments, "--stains", stains)[0] == 0
    tiles = ["tile", "--slides", slide, "--out", tmp_path / "tiles", "--size-px", "32"]
    assert run(tiles) == 0
    arguments = explain_arguments(alone, slide, tmp_path / "tiles", tmp_path / "y")
    assert "trained on 64 px at 0.5" in refused(*arguments, "--stains", stains)


def test_training_and_validation_are_of_one_kind(refused, cohort, cohort_tiles, tmp_path):
    shutil.copytree(cohort_tiles, tmp_path / "tiles")
    (tmp_path / "tiles" / "val_000.parquet").unlink()
    tiles = ["tile", "--slides", cohort, "--out", tmp_path / "others", "--size-px", "64"]
    assert run([*tiles, "--tile-mpp", "1.0"]) == 0
    shutil.copy(tmp_path / "others" / "val_000.parquet", tmp_path / "tiles")
    line = refused(*train_arguments(cohort, tmp_path / "tiles", tmp_path / "run"))
    assert "training tiles of 64 px at 0.5 um/px in stored colours, those of validation" in line


def test_a_profile_of_the_slide_in_another_colour_is_refused(
    refused, trained, cohort, cohort_tiles, stains, tmp_path
):
    shutil.copytree(stains, tmp_path / "stains")
    path = tmp_path / "stains" / "test_000.json"
    profile = json.loads(path.read_text())
    profile["source"]["colour"] = "srgb"
    path.write_text(json.dumps(profile))
    slide = cohort.parent / "test_000.tif"
    more = ["--stains", tmp_path / "stains"]
    line = refused(*explain_arguments(trained, slide, cohort_tiles, tmp_path / "x", *more))
    assert "fitted on srgb colours, the tiles are of stored ones" in line
    evaluate = ["evaluate", "--run", trained, "--split", "test", "--manifest", cohort]
    line = refused(*evaluate, "--tiles", cohort_tiles, "--out", tmp_path / "e", *more)
    assert "fitted on srgb colours, the tiles are of stored ones" in line


def test_training_goes_on_only_with_the_same_stains(
    refused, pathology, trained, cohort, cohort_tiles, stains
):
    augment = ["--data.augment", "{turns: true, stain: 0.3}"]
    same = train_arguments(cohort, cohort_tiles, trained, "--data.stains", stains, *augment)
    assert "nothing to do" in pathology(*same)[1]
    kept = (stains / "train_000.json").read_text()
    try:
        changed = json.loads(kept)
        changed["amounts"][0] *= 1.01
        (stains / "train_000.json").write_text(json.dumps(changed))
        assert "have changed since this run began" in refused(*same)
    finally:
        (stains / "train_000.json").write_text(kept)


def test_a_model_of_plain_tiles_refuses_stains(
    refused, cohort, cohort_tiles, stains, tmp_path_factory, tmp_path
):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    assert run(train_arguments(cohort, cohort_tiles, folder)) == 0
    slide = cohort.parent / "test_000.tif"
    line = refused(*explain_arguments(folder, slide, cohort_tiles, tmp_path, "--stains", stains))
    assert "trained on tiles that were not normalised" in line
