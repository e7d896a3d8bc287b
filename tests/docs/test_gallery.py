"""The gallery: each picture is there, small, and made by the commands that stand below it."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from pathology.geometry import Box, Mpp
from pathology.maps.slide_map import SlideMap
from scripts import gallery
from tests.docs.pages import DOCS, commands, fences
from tests.docs.test_data_page import options

PAGE = DOCS / "gallery.md"
TEXT = PAGE.read_text()
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
SECTIONS: dict[str, str] = dict(SECTION.findall(TEXT))


def picture_of(body):
    """The file that a section shows."""
    [path] = re.findall(r"^!\[.+\]\((.+)\)$", body, re.MULTILINE)
    return DOCS / path


def of_the_gallery():
    """Sections with a picture of scripts/gallery.py, by its name."""
    return {
        picture_of(body).stem: body
        for body in SECTIONS.values()
        if picture_of(body).parent.name == "gallery"
    }


def test_there_are_enough_and_none_is_left_over():
    shown = {picture_of(body) for body in SECTIONS.values()}
    assert len(shown) == len(SECTIONS) >= 8
    assert set((DOCS / "images" / "gallery").iterdir()) == {
        path for path in shown if path.parent.name == "gallery"
    }
    assert set(of_the_gallery()) == set(gallery.PICTURES)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_picture_is_small_enough_and_is_one(name):
    path = picture_of(SECTIONS[name])
    assert path.stat().st_size < 250_000
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"), float)
    assert min(pixels.shape) >= 200
    assert pixels.std() > 5


@pytest.mark.parametrize("name", gallery.PICTURES)
def test_commands_below_a_picture_are_those_it_is_made_of(name):
    [(language, console)] = fences(of_the_gallery()[name])
    assert language == "console"
    *told, last = (shlex.split(command) for command in commands(console))
    own = [step for step in gallery.PICTURES[name].steps if step not in gallery.SHARED]
    assert told == [shlex.split(step.command) for step in own]
    assert last == ["python", "scripts/gallery.py", name]


def test_what_pictures_share_stands_at_the_top():
    top = fences(TEXT.partition("<!-- shared -->\n")[2].partition("\n## ")[0])[0][1]
    wanted = [shlex.split(step.command) for step in gallery.SHARED]
    assert [shlex.split(command) for command in commands(top)] == wanted
    used = {step for picture in gallery.PICTURES.values() for step in picture.steps}
    assert set(gallery.SHARED) <= used


@pytest.mark.parametrize("name", SECTIONS)
def test_a_picture_says_what_is_to_be_seen_and_what_is_not(name):
    assert re.search(r"\*\*To see:\*\* .+\*\*Not:\*\* ", SECTIONS[name], re.DOTALL)
    picture = gallery.PICTURES.get(picture_of(SECTIONS[name]).stem)
    if picture and picture.needs:  # real
        assert re.search(r"^\*(Images|Slide): .+ CC0\.\*$", SECTIONS[name], re.MULTILINE)


def test_verbs_have_the_options_that_are_given():
    for picture in gallery.PICTURES.values():
        for step in picture.steps:
            program, verb, *words = shlex.split(step.command)
            if program == "pathology" and verb != "train":
                given = {word for word in words if word.startswith("--")}
                assert given <= options([verb, *words]) | {"--config"}, step.command


def test_without_data_real_pictures_are_skipped_and_stay(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "tissue.jpg").write_bytes(b"as it was")
    monkeypatch.setattr(
        "sys.argv",
        ["gallery", "tissue", "--work", str(tmp_path), "--out", str(out), "--data", str(tmp_path)],
    )
    gallery.main()
    said = capsys.readouterr().out
    assert "tissue: skipped, slides/CMU-1-Small-Region.svs is not under" in said
    assert "stays as it is" in said
    assert "0 of 1 pictures drawn" in said
    assert (out / "tissue.jpg").read_bytes() == b"as it was"


def test_a_step_is_run_once_where_its_result_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = gallery.Step('python -c \'open("made", "a").write("x")\'', "made")
    gallery.run(step)
    gallery.run(step)
    assert (tmp_path / "made").read_text() == "x"


def test_a_picture_is_made_as_small_as_it_has_to_be(tmp_path, rng):
    noise = Image.fromarray(rng.integers(0, 256, (600, 600, 3), np.uint8))
    gallery.save(noise, tmp_path / "noise.jpg")
    assert (tmp_path / "noise.jpg").stat().st_size <= gallery.LARGEST
    with Image.open(tmp_path / "noise.jpg") as picture:
        assert picture.size == (600, 600)


def test_a_map_is_sampled_where_it_lies():
    values = np.arange(6, dtype=float).reshape(2, 3)
    part = SlideMap(values, Box(10, 20, 30, 20), Mpp(0.5, 0.5), "logit")
    same = gallery.sampled(part, Box(10, 20, 30, 20), (2, 3))
    np.testing.assert_array_equal(same, values)
    beside = gallery.sampled(part, Box(0, 20, 20, 20), (2, 2))
    np.testing.assert_array_equal(beside, [[np.nan, 0], [np.nan, 3]])


def test_the_most_mixed_tiles_are_found():
    tiles = gallery.pd.DataFrame(
        {"x": [0, 8, 0, 8, 16, 16], "y": [0, 0, 8, 8, 0, 8], "width": 8, "weight": 1.0,
         "contribution": [0, 0, 0, 5, -9, 0]}
    )  # fmt: skip
    assert gallery.mixed_tiles(tiles, 2) == Box(8, 0, 16, 16)


def test_a_pattern_is_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"runs/a-\*: 0 folders"):
        gallery.only("runs/a-*")
    (tmp_path / "runs" / "a-1f").mkdir(parents=True)
    assert gallery.only("runs/a-*") == "runs/a-1f"
    (tmp_path / "runs" / "a-2e").mkdir()
    with pytest.raises(SystemExit, match="2 folders"):
        gallery.only("runs/a-*")


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gallery", "contrasts"])
    with pytest.raises(SystemExit):
        gallery.main()
    assert "no picture is called contrasts" in capsys.readouterr().err
