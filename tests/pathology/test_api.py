"""The short way in Python does what the verb does, and its results come back from disk."""

import gc
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from pathology.api import (
    TileGrid,
    TileSpec,
    explain_slide,
    explain_targets,
    load_explanation,
    load_run,
    open_slide,
    tile_slide,
    write_comparison,
)
from pathology.cli import main
from pathology.errors import ManifestError, OutputError, PathologyError, StampMismatchError
from pathology.maps.ome_zarr import read_ome_zarr
from pathology.slides import MemorySlide
from tests.cli.made_slides import write_slide
from tests.made_run import write_run

DATA = Path(os.environ.get("BCOS_PATHOLOGY_DATA", Path(__file__).parents[3] / "shared" / "data"))
SPEC = TileSpec(size_px=32, mpp=0.5, min_tissue=0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, a slide, the folder of its tiles, and an explanation of it."""
    folder = tmp_path_factory.mktemp("api")
    slide_path = write_slide(folder / "slides" / "case_1.tif", seed=1, mpp=0.5, side=192)
    run = load_run(write_run(folder / "runs" / "first"), device="cpu")
    with open_slide(slide_path) as slide:
        grid = tile_slide(slide, SPEC)
        grid.save(folder / "tiles" / "case_1.parquet")
        results = explain_targets(slide, grid, run, ["tumour", "tumour - normal"], quiet=True)
    return folder, slide_path, run, grid, results


@pytest.fixture(scope="module")
def saved(made):
    """The first explanation, saved where the verb would write it, after the slide was closed."""
    folder, *_, results = made
    path = folder / "explained" / "case_1" / "tumour"
    results[0].save(path)
    return path


def test_a_run_says_what_it_is(made):
    _, _, run, _, _ = made
    assert run.classes == ["normal", "tumour"]
    assert repr(run).startswith("LoadedRun('first', classes normal, tumour, model bcos_resnet18")


def test_an_explanation_says_what_it_is(made):
    result = made[-1][0]
    assert result.ledger.is_closed
    assert result.logit == result.ledger.score
    text = repr(result)
    assert "slide 'case_1', target 'tumour', score -" in text
    assert "closed" in text
    assert len(text) < 200
    assert result.provenance["run"] == "first"


def test_targets_are_explained_in_one_pass_and_differ_by_a_class(made):
    _, slide_path, run, grid, (tumour, contrast) = made
    with open_slide(slide_path) as slide:
        normal = explain_slide(slide, grid, run, "normal", quiet=True)
    # Both classes have one bias, so nothing but the maps is left of the difference.
    difference = tumour.contributions.values - normal.contributions.values
    # Three maps in float32.
    np.testing.assert_allclose(contrast.contributions.values, difference, atol=1e-8)
    assert contrast.logit == pytest.approx(tumour.logit - normal.logit, abs=1e-6)


def test_members_shifts_and_nulls_are_those_of_the_verb(made, tmp_path, capsys):
    folder, slide_path, run, grid, _ = made
    other, few = write_run(tmp_path / "second", seed=1), grid.select(np.arange(4))
    few.save(tmp_path / "tiles" / "case_1.parquet")
    more = {"members": [load_run(other, device="cpu")], "jitter": 2, "null": 2}
    options = {"out_mpp": 16.0, "quiet": True, **more}
    with open_slide(slide_path) as slide:
        result = explain_slide(slide, few, run, "tumour", **options)
        with pytest.raises(ValueError, match="same weights as first"):
            explain_slide(slide, grid, run, "tumour", members=[run])
        deeper = load_run(other, depth="head", device="cpu")
        with pytest.raises(ValueError, match="second is explained to head, first to pixels"):
            explain_slide(slide, grid, run, "tumour", members=[deeper])
    assert result.ledger.is_closed
    assert len(result.told["members"]) == 4
    assert {"spread", "null_p"} <= set(result.layers)
    result.save(tmp_path / "explained" / "case_1" / "tumour", ["ome-zarr"])
    stored = load_explanation(tmp_path / "explained" / "case_1" / "tumour")
    spread = result.layers["spread"].values
    np.testing.assert_array_equal(stored.map("layers/spread").values, spread)
    as_zarr, said = read_ome_zarr(stored.folder / "layers" / "spread.ome.zarr")
    np.testing.assert_array_equal(as_zarr.values, spread)
    assert said["layers"] == json.loads(json.dumps(result.told))
    arguments = [
        "explain", "--run", folder / "runs" / "first", "--slides", slide_path, "--tiles",
        tmp_path / "tiles", "--out", tmp_path / "explained", "--target", "tumour", "--device",
        "cpu", "--out-mpp", 16.0, "--members", other, "--jitter", 2, "--null", 2,
    ]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    assert "made before by the same model and settings" in capsys.readouterr().out
    temporary = result.stitched.folder
    del result
    gc.collect()
    assert not any(temporary.parent.iterdir())


def test_what_was_saved_is_read_back(made, saved):
    result, stored = made[-1][0], load_explanation(saved)
    assert repr(stored).removeprefix("Stored") == repr(result).removeprefix("Slide")
    assert stored.ledger == result.ledger
    assert stored.top(3) == result.top(3)
    assert stored.settings == json.loads(json.dumps(result.settings))
    assert stored.provenance == result.provenance
    assert stored.maps == ["density", "heatmap"]
    found, kept = stored.contributions, result.contributions
    np.testing.assert_array_equal(found.values, kept.values)
    assert found.box == kept.box
    assert found.unit == stored.overview(4000).unit == "logit"
    np.testing.assert_array_equal(stored.map("density").values, result.stitched.density().values)
    assert stored.view.size == result.view.size
    assert stored.view.thumbnail.shape == result.view.thumbnail.shape


def test_a_saved_explanation_draws_itself_without_its_slide(made, saved, tmp_path):
    stored = load_explanation(saved)
    stored.write_figure(tmp_path / "figure.png", dpi=60)
    with Image.open(tmp_path / "figure.png") as picture:
        assert json.loads(picture.text["bcos_pathology"])["ledger"] == stored.ledger.to_dict()
    assert stored._repr_html_().count("data:image/jpeg") == 1


def test_the_verb_knows_what_was_saved_as_its_own(made, saved, capsys):
    folder, slide_path, *_ = made
    arguments = [
        "explain", "--run", folder / "runs" / "first", "--slides", slide_path, "--tiles",
        folder / "tiles", "--out", folder / "explained", "--target", "tumour", "--device", "cpu",
    ]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    assert "made before by the same model and settings" in capsys.readouterr().out


def test_targets_are_compared_on_one_scale(made, tmp_path):
    results = made[-1]
    path = tmp_path / "comparison.pdf"
    write_comparison(results, path, dpi=60)
    pdf = PdfReader(path)
    record = json.loads(pdf.metadata["/Keywords"])
    assert [each["target"] for each in record["explanations"]] == ["tumour", "tumour - normal"]
    assert "tumour - normal: score" in pdf.pages[0].extract_text()
    write_comparison(results, path, ["one", "another"], dpi=60)
    assert "another: score" in PdfReader(path).pages[0].extract_text()
    with pytest.raises(ValueError, match="as many as explanations, 2; got 1"):
        write_comparison(results, path, ["one"])
    with pytest.raises(ValueError, match="of one slide, got case_1, case_2"):
        write_comparison([results[0], replace(results[1], slide_id="case_2")], path)
    with pytest.raises(ValueError, match="got none"):
        write_comparison([], path)


def test_tiles_of_another_slide_or_kind_give_no_numbers(made):
    _, slide_path, run, grid, _ = made
    other = MemorySlide(np.full((192, 192, 3), 99, np.uint8), mpp=0.5)
    with pytest.raises(StampMismatchError, match="tiles are of slide case_1"):
        explain_slide(other, grid, run)
    with (
        open_slide(slide_path) as slide,
        pytest.raises(StampMismatchError, match="trained on 32 px"),
    ):
        explain_slide(slide, tile_slide(slide, replace(SPEC, size_px=48)), run)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("tumor", {}, "did you mean 'tumour'"),
        ("tumour", {"out_mpp": 0.0}, "out_mpp and batch_size"),
        ("tumour", {"out_mpp": float("inf")}, "out_mpp and batch_size"),
        ("tumour", {"jitter": 0}, "^jitter must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(made, target, options, words):
    _, slide_path, run, grid, _ = made
    with open_slide(slide_path) as slide, pytest.raises(ValueError, match=words):
        explain_slide(slide, grid, run, target, quiet=True, **options)
    with pytest.raises(TypeError, match="a list of names, got 'tumour'"):
        explain_targets(slide, grid, run, "tumour")


def test_what_a_run_cannot_do_is_said_in_words_of_python(made, tmp_path):
    with pytest.raises(ManifestError, match="give run a folder that"):
        load_run(tmp_path / "nothing")
    run = made[0] / "runs" / "first"
    with pytest.raises(ValueError, match=r"^depth must be one of pixels"):
        load_run(run, depth="deep")
    with pytest.raises(ValueError, match=r"^encoder is for a run on slides"):
        load_run(run, encoder="resnet18")


def test_saving_never_removes_something_else(made, saved, tmp_path):
    result = made[-1][0]
    with pytest.raises(OutputError, match="is there already"):
        result.save(saved)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("three years")
    with pytest.raises(StampMismatchError, match="something else than an explanation"):
        result.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").is_file()
    with pytest.raises(ValueError, match="does not know its slide"):
        replace(result, slide=None).save(tmp_path / "new")
    with pytest.raises(ValueError, match="formats must be of"):
        result.save(tmp_path / "new", ["jpeg"])
    assert not (tmp_path / "new").exists()


def test_temporary_maps_go_with_their_explanation(made, tmp_path):
    _, slide_path, run, grid, _ = made
    with open_slide(slide_path) as slide:
        result = explain_slide(slide, grid, run, "tumour", quiet=True)
        kept = explain_slide(slide, grid, run, "tumour", quiet=True, scratch=tmp_path / "maps")
    folder, own = result.stitched.folder, kept.stitched.folder
    copy = replace(result, target="another name")
    del result
    gc.collect()
    assert folder.is_dir()  # the copy needs it
    del copy, kept
    gc.collect()
    assert not folder.exists()
    assert own.is_dir()


def test_a_folder_without_an_explanation_says_what_to_give(made, saved, tmp_path):
    with pytest.raises(PathologyError, match="folders in it: tumour"):
        load_explanation(saved.parent)
    with pytest.raises(PathologyError, match="SLIDE/TARGET"):
        load_explanation(tmp_path)
    (tmp_path / "explanation.json").write_text('{"slide_id": "x", "target": "y", "ledger": {}}')
    with pytest.raises(PathologyError, match="damaged"):
        load_explanation(tmp_path)
    with pytest.raises(PathologyError, match="no map 'heat'; it has density, heatmap"):
        load_explanation(saved).map("heat")


@pytest.mark.real_slides
def test_a_real_slide_is_explained_drawn_and_read_back(tmp_path):
    path = DATA / "slides" / "CMU-1-Small-Region.svs"
    if not path.is_file():
        pytest.skip("slides is not under BCOS_PATHOLOGY_DATA")
    spec = TileSpec(size_px=224, mpp=2.0, overlap_px=112)
    # At the last map, whose places are 64 um wide: a few seconds.
    run = load_run(write_run(tmp_path / "run", 224, 2.0), depth="head", device="cpu")
    with open_slide(path) as slide:
        result = explain_slide(slide, tile_slide(slide, spec), run, "tumour", quiet=True)
    result.save(tmp_path / "explained")
    stored = load_explanation(tmp_path / "explained")
    assert stored.ledger.is_closed
    assert stored.contributions.sum() == pytest.approx(stored.ledger.map_sum, abs=1e-6)
    for shown in (result, stored):
        assert len(shown._repr_html_()) < 400_000
    words = PdfReader(tmp_path / "explained" / "figure.pdf").pages[0].extract_text()
    assert "CMU-1-Small-Region" in words
    assert "0.499 x 0.499 µm/px" in words


def test_a_grid_read_from_disk_is_the_same(made):
    folder, slide_path, run, _, results = made
    with open_slide(slide_path) as slide:
        again = explain_slide(
            slide, TileGrid.load(folder / "tiles" / "case_1.parquet"), run, "tumour", quiet=True
        )
    assert again.settings == results[0].settings
    assert again.ledger == results[0].ledger
