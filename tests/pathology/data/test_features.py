"""Files of features: what is written is read, complete or not there, and never mixed."""

import json
import multiprocessing
import resource
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import h5py
import numpy as np
import pytest

from pathology.data.features import (
    KIND_FILE,
    FeatureFolder,
    FeatureKind,
    FeatureStamp,
    claim_folder,
    feature_path,
    read_features,
    read_kind,
    read_stamp,
    write_features,
)
from pathology.errors import ManifestError, OutputError, StampMismatchError
from pathology.geometry import Mpp, Size
from pathology.tiling import GridSource, TileGrid, TileSpec

KIND = FeatureKind(
    "resnet18", "ab" * 32, 5, "rgb", "fp32", "float32", TileSpec(size_px=32, mpp=2.0), "f00d"
)


def make_grid(tiles=7, spec=KIND.tiles, stamp="slide"):
    source = GridSource("file", stamp, Size(4000, 3000), Mpp(0.5, 0.25), "file")
    x = np.arange(tiles) * 128.5
    return TileGrid(spec, source, x, x / 2 + 1 / 3, np.ones(tiles))


def make_values(rng, tiles=7, dims=5):
    return rng.normal(size=(tiles, dims)).astype(np.float32)


def write(folder, slide_id, values, kind=KIND, **of_grid):
    """A slide's features, in two batches; returns the stamp."""
    grid = make_grid(len(values), **of_grid)
    stamp = FeatureStamp.of(kind, slide_id, grid, "profile")
    folder.mkdir(exist_ok=True)
    with write_features(feature_path(folder, slide_id), stamp, grid.boxes(), "a test") as writer:
        writer.append(values[:3])
        writer.append(values[3:])
    return stamp


# --- one file


def test_what_is_written_is_read(tmp_path, rng):
    values = make_values(rng)
    stamp = write(tmp_path, "a", values)
    read = read_features(tmp_path / "a.h5", stamp)
    np.testing.assert_array_equal(read.features, values)
    np.testing.assert_array_equal(read.boxes, make_grid().boxes())
    assert (read.stamp, len(read)) == (stamp, 7)
    assert read_stamp(tmp_path / "a.h5") == (stamp, 7)


def test_positions_are_centres_in_micrometres(tmp_path, rng):
    write(tmp_path, "a", make_values(rng))
    read = read_features(tmp_path / "a.h5")
    # 32 px at 2 um are 64 um; the slide's pixels are 0.5 um wide and 0.25 um high.
    x = np.arange(7) * 128.5
    wanted = np.stack([x * 0.5 + 32, (x / 2 + 1 / 3) * 0.25 + 32], axis=1)
    np.testing.assert_allclose(read.positions_um, wanted, rtol=1e-14)


def test_other_programs_find_the_usual_names(tmp_path, rng):
    values = make_values(rng)
    write(tmp_path, "a", values)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["features"][:], values)
        np.testing.assert_array_equal(file["coords"][:], np.rint(make_grid().boxes()[:, :2]))
        assert file["coords"].dtype == np.int64
        assert file.attrs["encoder"] == "resnet18"
        assert json.loads(file.attrs["tiles"])["size_px"] == 32
        assert file.attrs["made"] == "a test"


def test_half_precision_is_stored_and_read_as_float32(tmp_path, rng):
    values = make_values(rng)
    write(tmp_path, "a", values, replace(KIND, stored="float16"))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"].dtype == np.float16
    read = read_features(tmp_path / "a.h5").features
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("tiles", [40, 5000])
def test_some_rows_are_those_of_the_whole(tmp_path, rng, tiles):
    values = make_values(rng, tiles, dims=64)
    write(tmp_path, "a", values, replace(KIND, dims=64))
    whole = read_features(tmp_path / "a.h5")
    for count in (0, 1, 17, tiles):
        rows = rng.choice(tiles, count)  # in any order, some of them twice
        some = read_features(tmp_path / "a.h5", rows=rows)
        np.testing.assert_array_equal(some.features, values[rows])
        np.testing.assert_array_equal(some.boxes, whole.boxes[rows])
        np.testing.assert_array_equal(some.positions_um, whole.positions_um[rows])


@pytest.mark.parametrize("row", [-1, 7])
def test_rows_that_there_are_not_are_refused(tmp_path, rng, row):
    write(tmp_path, "a", make_values(rng))
    with pytest.raises(IndexError, match=r"\[0, 7\)"):
        read_features(tmp_path / "a.h5", rows=np.array([0, row]))


def test_a_mask_is_not_taken_for_rows(tmp_path, rng):
    write(tmp_path, "a", make_values(rng))
    with pytest.raises(TypeError, match="whole numbers, got bool"):
        read_features(tmp_path / "a.h5", rows=np.ones(7, bool))
    assert len(read_features(tmp_path / "a.h5", rows=[])) == 0


def test_a_failure_leaves_nothing(tmp_path, rng):
    grid = make_grid()
    stamp = FeatureStamp.of(KIND, "a", grid)

    def fail():
        with write_features(tmp_path / "a.h5", stamp, grid.boxes()) as writer:
            writer.append(make_values(rng, 3))
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="middle"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_too_few_rows_are_no_file(tmp_path, rng):
    grid = make_grid()
    stamp = FeatureStamp.of(KIND, "a", grid)
    with (
        pytest.raises(ValueError, match="3 rows written, wanted 7"),
        write_features(tmp_path / "a.h5", stamp, grid.boxes()) as writer,
    ):
        writer.append(make_values(rng, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (np.nan, KIND, "tile 4 at (514, 257.333): a feature is NaN in fp32; look at the encoder"),
        (np.inf, replace(KIND, precision="fp16"), "infinite in fp16; use --precision bf16 or fp32"),
        (7e4, replace(KIND, stored="float16"), "70000 is too large for float16; use --stored"),
    ],
)
def test_what_is_no_number_is_refused_by_slide_and_tile(tmp_path, rng, value, kind, message):
    values = make_values(rng)
    values[4, 2] = value
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the message is compared
        write(tmp_path, "case 1", values, kind)
    assert "slide 'case 1', tile 4" in str(caught.value)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path, rng):
    (tmp_path / "file").touch()
    grid = make_grid()
    with (
        pytest.raises(OutputError, match="cannot be written"),
        write_features(tmp_path / "file" / "a.h5", FeatureStamp.of(KIND, "a", grid), grid.boxes()),
    ):
        pass


@pytest.mark.parametrize("limit", [0, 2000, 6000])  # at once; in what describes it; in the rows
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, rng, limit):
    """Of a process that lives on: HDF5 by itself would take it down at its end."""
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    values = make_values(rng, 2000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, was[1]))
    try:
        with pytest.raises(OutputError, match=r"a\.h5: cannot be written: File too large"):
            write(tmp_path, "a", values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, "a", values)
    np.testing.assert_array_equal(read_features(tmp_path / "a.h5").features, values)


def test_missing_features_are_said(tmp_path):
    with pytest.raises(ManifestError, match="no features of slide 'a'; run `pathology features`"):
        read_features(tmp_path / "a.h5")


def spoil(path, how):
    if how == "text":
        path.write_text("features")
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[:-2000])
    else:
        with h5py.File(path, "r+") as file:
            if how == "another program's":
                for name in list(file.attrs):
                    del file.attrs[name]
            elif how == "of a later format":
                file.attrs["format"] = 99
            else:
                del file["boxes"]


@pytest.mark.parametrize(
    "how", ["text", "cut short", "another program's", "of a later format", "without boxes"]
)
def test_files_that_cannot_be_used_are_refused(tmp_path, rng, how):
    write(tmp_path, "a", make_values(rng))
    spoil(tmp_path / "a.h5", how)
    with pytest.raises(ManifestError, match="not a usable file of features"):
        read_features(tmp_path / "a.h5")


# --- stamps


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder": "resnet50"}, "encoder resnet18, wanted resnet50"),
        ({"weights": "cd" * 32}, "weights' hash abababababababab..., wanted cdcdcdcdcdcdcdcd..."),
        ({"dims": 6}, "dims 5, wanted 6"),
        ({"encoding": "stain"}, "encoding rgb, wanted stain"),
        ({"precision": "bf16"}, "precision fp32, wanted bf16"),
        ({"stored": "float16"}, "numbers stored as float32, wanted float16"),
        ({"tiles": TileSpec(size_px=64, mpp=2.0)}, "size_px 32, wanted 64"),
        ({"stain": None}, "stain target f00d, wanted none"),
    ],
)
def test_another_kind_is_refused_by_what_differs(tmp_path, rng, change, message):
    write(tmp_path, "a", make_values(rng))
    wanted = replace(KIND, **change)
    with pytest.raises(StampMismatchError) as caught:
        read_features(tmp_path / "a.h5", wanted)
    assert message in str(caught.value)
    assert str(caught.value).count(", wanted ") == 1
    assert wanted.digest() != KIND.digest()
    assert FeatureKind.from_dict(wanted.to_dict()) == wanted
    read_features(tmp_path / "a.h5", KIND)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slide": "other"}, "slide stamp slide, wanted other"),
        ({"mpp": Mpp(0.5, 0.5)}, "mpp 0.5 0.25, wanted 0.5 0.5"),
        ({"grid": "0123"}, "tile places "),
        ({"profile": None}, "stain profile profile, wanted none"),
    ],
)
def test_features_of_a_slide_that_has_changed_are_refused(tmp_path, rng, change, message):
    stamp = write(tmp_path, "a", make_values(rng))
    wanted = replace(stamp, **change)
    with pytest.raises(StampMismatchError) as caught:
        read_features(tmp_path / "a.h5", wanted)
    assert message in str(caught.value)
    assert "remove the file and run `pathology features` again" in str(caught.value)
    assert wanted.digest() != stamp.digest()


def test_a_stamp_knows_where_tiles_lie():
    one, other = make_grid(7), make_grid(8)
    assert FeatureStamp.of(KIND, "a", one).grid != FeatureStamp.of(KIND, "a", other).grid


# --- folders


@pytest.fixture
def folder(tmp_path, rng):
    for slide_id, tiles in (("a", 5), ("b.1", 9), ("c ü", 4)):
        write(tmp_path / "features", slide_id, make_values(rng, tiles))
    return tmp_path / "features"


def test_a_folder_holds_all_slides_or_those_asked_for(folder):
    (folder / ".d.h5.node7.1.part").touch()  # somebody's draft
    whole = FeatureFolder(folder)
    assert whole.slide_ids == ["a", "b.1", "c ü"]
    assert whole.counts == {"a": 5, "b.1": 9, "c ü": 4}
    assert (whole.dims, whole.kind) == (5, KIND)
    some = FeatureFolder(folder, ["c ü", "a", "a"])
    assert some.slide_ids == ["c ü", "a"]
    read = some.read("a", np.array([3, 0]))
    np.testing.assert_array_equal(read.features, read_features(folder / "a.h5").features[[3, 0]])


def test_the_digest_is_of_slides_and_what_made_them(folder, rng):
    whole = FeatureFolder(folder)
    assert whole.digest() == FeatureFolder(folder).digest()
    assert whole.digest() != FeatureFolder(folder, ["a"]).digest()
    write(folder, "a", make_values(rng, 5), stamp="scanned again")
    assert whole.digest() != FeatureFolder(folder).digest()


def test_slides_without_features_are_said(folder):
    with pytest.raises(ManifestError, match="no features of slide 'd'"):
        FeatureFolder(folder, ["a", "d"])


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(ManifestError, match="no features"):
        FeatureFolder(tmp_path)


def test_mixed_features_are_refused(folder, rng):
    write(folder, "b.1", make_values(rng), replace(KIND, encoder="resnet50"))
    with pytest.raises(StampMismatchError, match=r"b\.1.*resnet50, slide 'a' has resnet18"):
        FeatureFolder(folder)
    assert FeatureFolder(folder, ["a", "c ü"]).slide_ids == ["a", "c ü"]
    with pytest.raises(StampMismatchError, match="wanted resnet50"):
        FeatureFolder(folder, ["a"], replace(KIND, encoder="resnet50"))


def test_features_under_another_slides_name_are_refused(folder):
    (folder / "a.h5").rename(folder / "d.h5")
    with pytest.raises(StampMismatchError, match="holds features of slide 'a'"):
        FeatureFolder(folder)


def test_files_that_change_meanwhile_are_refused(folder, rng):
    known = FeatureFolder(folder)
    write(folder, "a", make_values(rng, 6))
    with pytest.raises(StampMismatchError, match="tile places"):
        known.read("a")


@pytest.mark.parametrize("start", ["fork", "spawn"])
# Python warns of forking beside threads; that is what is tried.
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_processes_read_the_same(folder, start):
    known = FeatureFolder(folder)
    wanted = known.read("b.1").features
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(2, context) as pool:
        found = list(pool.map(known.read, ["b.1"] * 8))
    for read in found:
        np.testing.assert_array_equal(read.features, wanted)


def test_a_folder_is_claimed_once(tmp_path):
    claim_folder(tmp_path, KIND)
    assert read_kind(tmp_path) == KIND
    claim_folder(tmp_path, KIND)
    with pytest.raises(StampMismatchError, match=rf"{KIND_FILE}.*precision fp32, wanted bf16"):
        claim_folder(tmp_path, replace(KIND, precision="bf16"))
    assert [path.name for path in tmp_path.iterdir()] == [KIND_FILE]


def test_a_claim_of_which_nothing_came_says_how_to_undo_it(tmp_path, rng):
    claim_folder(tmp_path, KIND)
    with pytest.raises(StampMismatchError, match=r"none in it yet: .* remove .*features\.yaml"):
        claim_folder(tmp_path, replace(KIND, stored="float16"))
    write(tmp_path, "a", make_values(rng))
    with pytest.raises(StampMismatchError) as caught:
        claim_folder(tmp_path, replace(KIND, stored="float16"))
    assert "none in it" not in str(caught.value)


def test_a_folder_that_lost_its_claim_is_claimed_by_what_it_holds(tmp_path, rng):
    write(tmp_path, "a", make_values(rng))
    with pytest.raises(StampMismatchError, match=r"a\.h5: features made with precision fp32"):
        claim_folder(tmp_path, replace(KIND, precision="bf16"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    claim_folder(tmp_path, KIND)
    assert read_kind(tmp_path) == KIND


def test_of_many_that_claim_a_folder_at_once_one_kind_wins(tmp_path):
    for turn in range(20):
        folder = tmp_path / str(turn)
        folder.mkdir()
        kinds = [replace(KIND, encoder=f"model {number % 4}") for number in range(8)]
        ready = threading.Barrier(len(kinds))
        won = []

        def claim(kind, folder=folder, ready=ready, won=won):
            ready.wait()
            try:
                claim_folder(folder, kind)
                won.append(kind)
            except StampMismatchError:
                pass

        threads = [threading.Thread(target=claim, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [read_kind(folder)] * 2  # two of the eight asked for each kind


def test_a_claim_that_is_no_claim_is_said(tmp_path):
    (tmp_path / KIND_FILE).write_text("encoder: resnet18\n")
    with pytest.raises(ManifestError, match="does not say what features there are"):
        claim_folder(tmp_path, KIND)


def test_without_hard_links_a_folder_is_claimed_too(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", no_links)
    claim_folder(tmp_path, KIND)
    assert read_kind(tmp_path) == KIND
    with pytest.raises(StampMismatchError):
        claim_folder(tmp_path, replace(KIND, dims=6))
