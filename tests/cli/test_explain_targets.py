"""``pathology explain`` for several targets: folders of their own, made in one pass, resumed."""

import json

import numpy as np
import pytest

from pathology.cli.explain import _targets
from pathology.maps.ome_tiff import read_ome_tiff
from tests.cli.made_slides import write_slide
from tests.made_run import write_run

CLASSES = ["0", "a/b", 'it\'s "odd" $x', ".."]
FOLDERS = ["0", "a_b", 'it\'s_"odd"_$x', "_.."]


@pytest.fixture(scope="module", autouse=True)
def without_figures():
    """Figures for papers take most of the time of a slide this small, and hold no numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathology.explain.results.write.write_figure", lambda *_: None)
        patch.setattr(
            "pathology.explain.results.shown.write_comparison",
            lambda shown, path: path.write_text(" ".join(each.target for each in shown)),
        )
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The verb with a run, a slide and its tiles; ``--out`` and ``--target`` are missing."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("made")
    slide, tiles = folder / "s0.tif", folder / "tiles"
    write_slide(slide, 0, side=256)
    size = ["--size-px", "32", "--tile-mpp", "2.0", "--exclude", "none"]
    assert main(["tile", "--slides", str(slide), "--out", str(tiles), *size]) == 0
    write_run(folder / "run", mpp=2.0, classes=CLASSES)
    words = [
        "explain", "--run", folder / "run", "--slides", slide, "--tiles", tiles, "--depth",
        "layer3", "--device", "cpu", "--out",
    ]  # fmt: skip
    return [str(word) for word in words]


def values(folder):
    return np.nan_to_num(read_ome_tiff(folder / "heatmap.ome.tif")[0].values)


def test_all_classes_whatever_they_are_called_and_what_is_missing_later(pathology, words, tmp_path):
    out = tmp_path / "s0"
    code, _, _ = pathology(*words, tmp_path, "--target", "all")
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted([*FOLDERS, "comparison.pdf"])
    records = [json.loads((out / name / "explanation.json").read_text()) for name in FOLDERS]
    assert [record["target"] for record in records] == CLASSES
    assert all(record["ledger"]["is_closed"] for record in records)
    assert (out / "comparison.pdf").read_text() == " ".join(CLASSES)

    # A difference beside them, as one of several: only that is made, and it is what it should be.
    made = [(out / name).stat().st_ino for name in FOLDERS]
    code, said, _ = pathology(*words, tmp_path, "--target", "[0, 0 - a/b, a/b]")
    assert (code, said.count("made before")) == (0, 2)
    assert [(out / name).stat().st_ino for name in FOLDERS] == made
    assert (out / "comparison.pdf").read_text() == "0 0 - a/b a/b"
    wanted = values(out / "0") - values(out / "a_b")
    size = 1e-5 * np.abs(wanted).max()  # float32
    np.testing.assert_allclose(values(out / "0_minus_a_b"), wanted, rtol=0, atol=size)

    # Made anew alone, what compared it is no longer true.
    code, _, _ = pathology(*words, tmp_path, "--target", "0", "--overwrite")
    assert code == 0
    assert not (out / "comparison.pdf").exists()


def test_targets_of_a_config(pathology, words, tmp_path):
    (tmp_path / "more.yaml").write_text('target: ["0 - mean", a/b]\n')
    out = tmp_path / "out"
    assert pathology(*words, out, "--config", tmp_path / "more.yaml")[0] == 0
    assert {path.name for path in (out / "s0").iterdir() if path.is_dir()} == {
        "0_minus_mean",
        "a_b",
    }


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("[0, 0]", "--target names '0' twice"),
        ("[0, 7]", "got '7'"),
        ("[]", "--target names none"),
        ("[0", "got '[0'; did you mean '0'?"),
        ("[{a: b}]", "--target must be one of 0, a/b"),
    ],
)
def test_what_cannot_be_explained_is_refused(refused, words, tmp_path, target, said):
    assert said in refused(*words, tmp_path / "out", "--target", target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("asked", ["all", ["a_b", "a/b"]])
def test_two_targets_for_one_folder_are_refused(asked):
    with pytest.raises(ValueError, match="would share the folder a_b; explain them one by one"):
        _targets(asked, ["a/b", "a_b"])


def test_words_of_a_list_stay_as_they_are():
    assert _targets("[0, no, 1.0]", ["0", "no", "1.0"]) == ["0", "no", "1.0"]
    assert _targets("[0]", ["[0]", "0"]) == ["[0]"]
    assert _targets(None, ["0"]) == []
    assert _targets("all", ["all", "0"]) == ["all"]
