"""``pathology tile`` over cohorts: stopped, in parallel, and on slides that are not fit."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml

from pathology.outputs import draft_path
from pathology.tiling import TileGrid, TileSpec
from tests.cli.made_slides import write_slide, write_slides

SMALL = ["--size-px", "32", "--tile-mpp", "2"]
COUNT = 8
NOBODY = 999_999_999  # no process has such a number


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Eight small slides whose names have spaces and letters that are not ASCII."""
    folder = tmp_path_factory.mktemp("slides of größter Art")
    write_slides(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def undisturbed(slides, tmp_path_factory):
    """What one process writes in one go."""
    from pathology.cli import main

    out = tmp_path_factory.mktemp("undisturbed")
    assert main(["tile", "--slides", str(slides), "--out", str(out), *SMALL]) == 0
    return out


def contents(folder):
    """Every file but those that say where and when."""
    kept = {"tile.yaml", ".cohort", "cohort.csv"}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in kept}


def failures(out):
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide_id"]: row["message"] for row in csv.DictReader(file)}


# --- what is written


def test_every_slide_has_a_table_a_picture_and_numbers(undisturbed, slides):
    names = [path.stem for path in sorted(slides.iterdir())]
    assert set(contents(undisturbed)) == {
        *(f"{name}{end}" for name in names for end in (".parquet", ".png", ".json")),
        "quality.html",
    }
    page = (undisturbed / "quality.html").read_text()
    for name in names:
        grid = TileGrid.load(undisturbed / f"{name}.parquet", spec=TileSpec(32, 2.0))
        numbers = json.loads((undisturbed / f"{name}.json").read_text())
        assert (numbers["slide_id"], numbers["tiles"]) == (name, len(grid))
        assert (undisturbed / numbers["picture"]).exists()
        assert name in page
        # The block of tissue is 256 px wide and high: about eight tiles of 32.
        assert 0.8 < len(grid) / 64 < 1.3


def test_the_settings_repeat_the_run(undisturbed, pathology):
    settings = yaml.safe_load((undisturbed / "tile.yaml").read_text())
    assert settings["size_px"] == 32
    assert settings["exclude"] == "pen,fold,blur,edge,black"
    before = contents(undisturbed)
    code, out, _ = pathology("tile", "--config", undisturbed / "tile.yaml")
    assert (code, out.count("made before with the same settings")) == (0, COUNT)
    assert contents(undisturbed) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_the_result_does_not_depend_on_workers(pathology, slides, undisturbed, tmp_path, workers):
    code, out, _ = pathology(
        "tile", "--slides", slides, "--out", tmp_path, *SMALL, "--workers", workers
    )
    assert (code, out.count(" tiles")) == (0, COUNT)
    assert contents(tmp_path) == contents(undisturbed)


def test_random_tiles_do_not_depend_on_workers_or_company(pathology, slides, tmp_path):
    options = [*SMALL, "--placement", "random", "--count", "7", "--seed", "3"]
    for name, where, workers in (
        ("one", slides, 0),
        ("two", slides, 2),
        ("alone", sorted(slides.iterdir())[5], 0),
    ):
        out = tmp_path / name
        code, *_ = pathology(
            "tile", "--slides", where, "--out", out, *options, "--workers", workers
        )
        assert code == 0
    one, two, alone = (contents(tmp_path / name) for name in ("one", "two", "alone"))
    assert one == two
    (table,) = (name for name in alone if name.endswith(".parquet"))
    assert alone[table] == one[table]
    assert len(TileGrid.load(tmp_path / "one" / table)) == 7


# --- stopped and gone on


def test_a_run_killed_again_and_again_ends_as_if_undisturbed(slides, undisturbed, tmp_path):
    arguments = ["tile", "--slides", slides, "--out", tmp_path, *SMALL, "--workers", "2"]
    command = [sys.executable, "-m", "pathology.cli", *map(str, arguments)]
    chance = random.Random(5)
    begun = []
    for kill in range(3):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        before = names_in(tmp_path)
        # At some moment after a new draft or file was seen, every other time a whole table.
        end = ".parquet" if kill % 2 == 0 else ""
        while process.poll() is None and not any(
            name.endswith(end) for name in names_in(tmp_path) - before
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        if kill % 2:
            os.killpg(process.pid, signal.SIGKILL)  # the workers, too
        else:
            process.kill()  # they find out
        process.wait()
        begun.append(len(list(tmp_path.glob("*.parquet"))))
        for table in tmp_path.glob("*.parquet"):  # complete, or not there
            assert len(TileGrid.load(table)) > 0
    assert 0 < begun[0] < COUNT
    assert begun == sorted(begun)
    draft_path(tmp_path / "slide 000 ü.parquet", NOBODY).write_text("half")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == contents(undisturbed)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_with_130_and_leaves_no_drafts(slides, tmp_path, workers):
    arguments = ["tile", "--slides", slides, "--out", tmp_path, *SMALL, "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-m", "pathology.cli", *map(str, arguments)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.parquet")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; run it again to continue" in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.glob(".*")] == [".cohort"]


def test_drafts_of_the_dead_are_removed_and_of_the_living_left(pathology, slides, tmp_path):
    slide = sorted(slides.iterdir())[0]
    picture = tmp_path / f"{slide.stem}.png"
    living, dead = draft_path(picture, os.getppid()), draft_path(picture, NOBODY)
    other = draft_path(tmp_path / "another.png", NOBODY)
    common = [draft_path(tmp_path / name, NOBODY) for name in ("tile.yaml", "quality.html")]
    for draft in (living, other, dead, *common):
        draft.touch()
    assert pathology("tile", "--slides", slide, "--out", tmp_path, *SMALL)[0] == 0
    assert [draft.exists() for draft in (living, other, dead)] == [True, True, False]
    assert not any(draft.exists() for draft in common)


def test_files_of_somebody_else_are_not_replaced(refused, pathology, slides, tmp_path):
    slide = sorted(slides.iterdir())[0]
    same = ["tile", "--slides", slide, "--out", tmp_path, *SMALL]
    for end, content in ((".json", '{"type": "FeatureCollection"}'), (".json", "[]"), (".png", "")):
        taken = tmp_path / f"{slide.stem}{end}"
        taken.write_text(content)
        assert "was not written by `pathology tile`" in refused(*same, "--keep-going")
        assert taken.read_text() == content
        taken.unlink()
    # A run that was stopped between the two.
    assert pathology(*same)[0] == 0
    for end in (".png", ".parquet"):
        (tmp_path / f"{slide.stem}{end}").unlink()
    assert pathology(*same)[0] == 0


# --- slides that are not fit


@pytest.fixture
def mixed(tmp_path):
    """Two good slides among an empty, a damaged and a blank one."""
    folder = tmp_path / "mixed"
    write_slide(folder / "a good.tif", 1)
    write_slide(folder / "z good.tif", 2)
    (folder / "empty.svs").touch()
    content = write_slide(folder / "truncated.tif", 3).read_bytes()
    (folder / "truncated.tif").write_bytes(content[: len(content) // 2])
    blank = np.full((512, 512, 3), 240, np.uint8)
    tifffile.imwrite(
        folder / "blank.tif", blank, tile=(128, 128), photometric="rgb",
        resolution=(5e3, 5e3), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_slides_are_listed_and_good_ones_done(pathology, mixed, tmp_path, workers):
    out = tmp_path / "out"
    code, said, _ = pathology(
        "tile", "--slides", mixed, "--out", out, *SMALL, "--keep-going", "--workers", workers
    )
    assert code == 3
    assert "3 of 5 slides failed" in said
    assert {p.stem for p in out.glob("*.parquet")} == {"a good", "z good"}
    messages = failures(out)
    assert list(messages) == ["blank", "empty", "truncated"]
    assert "is an empty file" in messages["empty"]
    assert "holds enough tissue" in messages["blank"]
    assert all(f"{name}." in message for name, message in messages.items())
    # A slide without tissue can be looked at, to see why.
    assert json.loads((out / "blank.json").read_text())["tiles"] == 0
    assert (out / "blank.png").exists()
    page = (out / "quality.html").read_text()
    assert all(name in page for name in ("a good", "blank", "empty", "truncated"))
    # Repaired, it is done, and the good ones are not done again.
    write_slide(mixed / "truncated.tif", 3)
    (mixed / "empty.svs").unlink()
    code, said, _ = pathology(
        "tile", "--slides", mixed, "--out", out, *SMALL, "--keep-going", "--workers", workers
    )
    assert (code, said.count("made before")) == (3, 2)
    assert list(failures(out)) == ["blank"]


def test_a_bad_slide_stops_a_run_that_may_not_go_on(refused, mixed, tmp_path):
    for workers in (0, 1):
        line = refused(
            "tile", "--slides", mixed, "--out", tmp_path / "o", *SMALL, "--workers", workers
        )
        assert "blank.tif" in line
        assert "tissue" in line


def test_mpp_from_the_manifest_and_the_command_line(pathology, refused, tmp_path):
    write_slide(tmp_path / "a.tif", 1, mpp=None)
    write_slide(tmp_path / "b.tif", 1, mpp=None)
    manifest = tmp_path / "slides.csv"
    manifest.write_text("slide_id,path,mpp\na,a.tif,2.0\nb,b.tif,\n")
    out = tmp_path / "out"
    assert "--mpp" in refused("tile", "--slides", manifest, "--out", out, *SMALL)
    assert pathology("tile", "--slides", manifest, "--out", out, *SMALL, "--mpp", "4")[0] == 0
    sources = [TileGrid.load(out / f"{name}.parquet").source for name in "ab"]
    assert [source.mpp.x for source in sources] == [2.0, 4.0]
    assert {source.mpp_source for source in sources} == {"given"}
    # Another mpp is another grid, not this one at another scale.
    line = refused("tile", "--slides", manifest, "--out", out, *SMALL, "--mpp", "3")
    assert "mpp (4.0, 4.0), wanted b with (3.0, 3.0)" in line
    for absurd in ("0", "-1", "0.25 um", "inf"):
        manifest.write_text(f"slide_id,path,mpp\na,a.tif,{absurd}\n")
        line = refused("tile", "--slides", manifest, "--out", tmp_path / "p", *SMALL)
        assert "row 2 has mpp" in line
    manifest.write_text("slide_id,path\na,a.tif\n")
    for absurd in ("0", "-1", "1000"):
        line = refused(
            "tile", "--slides", manifest, "--out", tmp_path / "p", *SMALL, "--mpp", absurd
        )
        assert "mpp" in line


def test_what_could_not_be_judged_is_said(pathology, tmp_path):
    write_slide(tmp_path / "slides" / "fine.tif", 1, mpp=2.0)
    write_slide(tmp_path / "slides" / "coarse.tif", 1, mpp=4.0)
    out = tmp_path / "out"
    options = ["--size-px", "32", "--tile-mpp", "4", "--slides", tmp_path / "slides"]
    said = "".join(map(str, pathology("tile", *options, "--out", out))).splitlines()
    lines = {name: next(line for line in said if name in line) for name in ("fine", "coarse")}
    assert "blur not judged: at 4 um per pixel the slide is too coarse" in lines["coarse"]
    assert "not judged" not in lines["fine"]
    assert "blur not judged" in (out / "quality.html").read_text()
    # Who does not ask for it is not told.
    said = pathology("tile", *options, "--out", tmp_path / "pen", "--exclude", "pen")
    assert "not judged" not in "".join(map(str, said))


# --- which slides


def test_folders_in_folders(pathology, refused, tmp_path):
    nested = tmp_path / "gdc"
    write_slide(nested / "0a1b" / "TCGA-AA-0001.tif", 1)
    write_slide(nested / "2c3d" / "TCGA-AA-0002.tif", 2)
    (nested / "2c3d" / "._TCGA-AA-0002.tif").write_bytes(b"resource fork")
    (nested / "2c3d" / ".git").mkdir()
    write_slide(nested / "2c3d" / ".git" / "not.tif", 3)
    (nested / "2c3d" / "logs").mkdir()
    out = tmp_path / "out"
    assert "use --recursive" in refused("tile", "--slides", nested, "--out", out, *SMALL)
    code, *_ = pathology("tile", "--slides", nested, "--out", out, *SMALL, "--recursive")
    assert code == 0
    assert {p.stem for p in out.glob("*.parquet")} == {"TCGA-AA-0001", "TCGA-AA-0002"}
    write_slide(nested / "4e5f" / "TCGA-AA-0001.tif", 1)
    line = refused("tile", "--slides", nested, "--out", out, *SMALL, "--recursive")
    assert "two files are called 'TCGA-AA-0001'" in line
    assert "0a1b" in line
    assert "4e5f" in line


def test_a_dicom_series_is_one_slide(tmp_path):
    from pathology.data.slide_list import list_slides

    def instance(path, series):
        path.parent.mkdir(exist_ok=True)
        uid = series.encode()
        path.write_bytes(
            bytes(128) + b"DICM" + b"\x20\x00\x0e\x00UI" + len(uid).to_bytes(2, "little") + uid
        )

    for i in range(3):
        instance(tmp_path / "case 1" / f"{i}.dcm", "1.2.3")
        instance(tmp_path / "case 2" / f"{i}.dcm", "1.2.4")
    instance(tmp_path / "single" / "x.dcm", "1.2.5")
    for name, series in (("a0", "1.2.6"), ("a1", "1.2.6"), ("b0", "1.2.7"), ("b1", "1.2.7")):
        instance(tmp_path / "two series" / f"{name}.dcm", series)
    table = list_slides(tmp_path, recursive=True)
    assert table["slide_id"].tolist() == ["case 1", "case 2", "x", "a0", "b0"]
    assert table["path"][0].endswith("0.dcm")


def test_a_slide_id_may_not_leave_the_folder(refused, tmp_path):
    write_slide(tmp_path / "a.tif", 1)
    for name in ("../a", "..", "b/a", r"b\a"):
        (tmp_path / "slides.csv").write_text(f"slide_id,path\n{name},a.tif\n")
        line = refused("tile", "--slides", tmp_path / "slides.csv", "--out", tmp_path / "o", *SMALL)
        assert "cannot be the name of a file" in line


# --- another specification


def test_another_specification_is_refused_by_name_or_made_anew(
    pathology, refused, slides, tmp_path
):
    slide = sorted(slides.iterdir())[0]
    same = ["tile", "--slides", slide, "--out", tmp_path, *SMALL]
    assert pathology(*same)[0] == 0
    for options, said in (
        (["--exclude", "pen,blur"], "exclude pen,fold,blur,edge,black, wanted pen,blur"),
        (["--exclude", "none"], "wanted none"),
        (["--tissue", "density"], "tissue colour, wanted density"),
        (["--placement", "random", "--count", "5"], "placement grid, wanted random; count None"),
        (["--colour", "srgb"], "colour stored, wanted srgb"),
        (["--align", "file"], "align bounds, wanted file"),
    ):
        assert said in refused(*same, *options)
    # Without the settings, the table itself tells.
    (tmp_path / "tile.yaml").unlink()
    assert "tissue colour, wanted density" in refused(*same, "--tissue", "density")
    code, out, _ = pathology(*same, "--tissue", "density", "--overwrite")
    assert (code, "made before" in out) == (0, False)
    assert TileGrid.load(tmp_path / f"{slide.stem}.parquet").spec.tissue == "density"
    code, out, _ = pathology(*same, "--tissue", "density", "--overwrite")
    assert (code, "made before" in out) == (0, True)


def test_tables_that_cannot_be_used_are_refused_or_made_anew(pathology, refused, slides, tmp_path):
    slide = sorted(slides.iterdir())[0]
    same = ["tile", "--slides", slide, "--out", tmp_path, *SMALL]
    assert pathology(*same)[0] == 0
    table = tmp_path / f"{slide.stem}.parquet"
    good = table.read_bytes()
    old = pq.read_table(table)
    header = json.loads(old.schema.metadata[b"pathology.tiles"]) | {"format": 1}
    pq.write_table(
        old.replace_schema_metadata({b"pathology.tiles": json.dumps(header).encode()}), table
    )
    assert "format 1, wanted 2; tile the slide anew (pathology tile --overwrite)" in refused(*same)
    assert pathology(*same, "--overwrite")[0] == 0
    assert table.read_bytes() == good
    table.write_bytes(good[:-100])
    assert "cannot be read" in refused(*same)
    assert pathology(*same, "--overwrite")[0] == 0
    assert table.read_bytes() == good


def test_what_another_version_wrote_otherwise_is_not_passed_by(
    pathology, refused, slides, tmp_path, monkeypatch
):
    same = ["tile", "--slides", sorted(slides.iterdir())[0], "--out", tmp_path, *SMALL]
    assert pathology(*same)[0] == 0
    monkeypatch.setattr("pathology.tiling.grid.FORMAT", 3)
    assert "format 2, wanted 3; tile the slide anew" in refused(*same)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tissue", "given"], "needs the name of a finder"),
        (["--tissue", "green"], "tissue must be one of colour"),
        (["--exclude", "dust"], "exclude lists some of pen"),
        (["--placement", "random"], "needs count"),
        (["--placement", "annotated", "--count", "3"], "manifest with a `regions` column"),
        (["--min-tissue", "2"], "min_tissue must be in [0, 1]"),
        (["--label-fraction", "2"], "label_fraction must be in [0, 1], got 2"),
        (["--workers", "-2"], "workers must be at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(refused, slides, tmp_path, options, said):
    assert said in refused("tile", "--slides", slides, "--out", tmp_path, *SMALL, *options)


# --- regions


def test_labels_follow_the_regions_and_tiles_stay(pathology, tmp_path):
    write_slide(tmp_path / "a.tif", 0)
    mask = np.ones((128, 128), np.uint8)
    mask[:, 40:] = 2  # through the third column of tiles, the first with tissue begin at 64 / 4
    tifffile.imwrite(tmp_path / "a_mask.tif", mask)
    (tmp_path / "regions.json").write_text('{"normal": 1, "tumour": 2}')
    (tmp_path / "slides.csv").write_text("slide_id,path,regions\na,a.tif,a_mask.tif\n")
    options = ["tile", "--slides", tmp_path / "slides.csv", "--out", tmp_path / "out"]
    options += ["--size-px", "48", "--tile-mpp", "2"]

    def tables(*more):
        code, out, _ = pathology(*options, *more)
        assert code == 0
        path = tmp_path / "out" / "a.parquet"
        return pd.read_parquet(path), TileGrid.load(path).made["label"]["min_fraction"], out

    first, fraction, _ = tables()
    assert fraction == 0.75
    assert set(first["label"]) == {"normal", "tumour", ""}
    loose, fraction, said = tables("--label-fraction", "0.5")
    assert (fraction, "labels made anew" in said) == (0.5, True)
    assert set(loose["label"]) == {"normal", "tumour"}
    # The fraction is kept even where all labels stay the same.
    same, fraction, said = tables("--label-fraction", "0.51")
    assert (fraction, "labels made anew" in said) == (0.51, True)
    tifffile.imwrite(tmp_path / "a_mask.tif", np.ones_like(mask))
    last, _, said = tables("--label-fraction", "0.51")
    assert set(last["label"]) == {"normal"}
    for other in (loose, same, last):
        pd.testing.assert_frame_equal(other.drop(columns="label"), first.drop(columns="label"))


def test_a_table_that_was_to_be_replaced_does_not_outlive_a_failure(pathology, slides, tmp_path):
    same = ["tile", "--slides", slides, "--out", tmp_path, *SMALL]
    assert pathology(*same)[0] == 0
    # Of a block of tissue, tiles of another size are never full.
    other = ["--size-px", "200", "--min-tissue", "1", "--overwrite", "--keep-going"]
    assert pathology(*same, *other)[0] == 3
    failed = failures(tmp_path)
    assert failed
    assert {path.stem for path in tmp_path.glob("*.parquet")}.isdisjoint(failed)


def test_annotated_tiles_and_their_labels(pathology, refused, tmp_path):
    write_slide(tmp_path / "a.tif", 0)  # tissue from (64, 128) to (320, 384)
    mask = np.zeros((128, 128), np.uint8)
    mask[40:88, 20:40], mask[40:88, 50:70] = 1, 2
    tifffile.imwrite(tmp_path / "a_mask.tif", mask)
    (tmp_path / "regions.json").write_text('{"normal": 1, "tumour": 2}')
    manifest = tmp_path / "slides.csv"
    manifest.write_text("slide_id,path,regions\na,a.tif,a_mask.tif\n")
    options = ["tile", "--slides", manifest, "--out", tmp_path / "out", *SMALL]
    more = ["--placement", "annotated", "--count", "6"]
    code, out, _ = pathology(*options, *more)
    assert (code, "12 tiles; normal 6; tumour 6" in out) == (0, True)
    table = pd.read_parquet(tmp_path / "out" / "a.parquet")
    assert table["region"].tolist() == table["label"].tolist()
    assert sorted(table["label"]) == ["normal"] * 6 + ["tumour"] * 6
    assert "made before" in pathology(*options, *more)[1]
    # Drawn in other regions, the tiles would be others.
    tifffile.imwrite(tmp_path / "a_mask.tif", np.where(mask == 2, 1, mask).astype(np.uint8))
    assert "drawn in other regions or classes than there are now" in refused(*options, *more)
    code, out, _ = pathology(*options, *more, "--overwrite")
    assert (code, "6 tiles; normal 6; tumour 0" in out) == (0, True)
    (tmp_path / "regions.json").write_text('{"normal": 2, "tumour": 1}')
    assert "drawn in other regions or classes" in refused(*options, *more)
    manifest.write_text("slide_id,path,regions\nb,a.tif,\n")
    assert "slide 'b' has no regions" in refused(*options, *more)


def test_slides_that_are_not_there_are_refused_before_their_tiles(refused, tmp_path):
    line = refused("tile", "--slides", tmp_path / "nowhere", "--out", tmp_path / "tiles")
    assert "nowhere: no such file or folder" in line
