"""``pathology data``: from a folder to a manifest that the other verbs read."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pathology.annotations import read_classes
from pathology.data.image_files import read_image
from pathology.data.manifest import read_slide_manifest, read_table, read_tile_manifest
from tests.pathology.data.open_data.trees import (
    BARCODES,
    TREES,
    made_once,
    make_bach,
    make_breakhis,
    make_camelyon16,
    make_camelyon17,
    make_csv,
    make_folder,
    make_mhist,
    make_munich_aml,
    make_nct_crc,
    make_panda,
    make_tcga,
    picture,
    table,
    take_small,
)

SLIDES = ("camelyon16", "camelyon17", "panda", "tcga", "slides")


@pytest.fixture
def small(monkeypatch):
    return partial(take_small, monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_once(tmp_path_factory)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Lists of what is wrong are written where one stands."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_list_names_every_set_with_licence_and_source(pathology):
    code, out, _ = pathology("data", "list")
    assert code == 0
    for name in TREES:
        assert f"\n{name}: " in "\n" + out
    assert "CC BY-NC-ND 4.0, no commercial use; cite Aresta" in out
    assert "https://zenodo.org/records/1214456" in out


def test_usage(pathology, refused):
    code, out, _ = pathology("data", "--help")
    assert code == 0
    assert "manifest   write the manifest" in out
    assert pathology("data")[0] == 2
    assert "no data verb is called 'verify'" in refused("data", "verify", "x")


@pytest.mark.parametrize("name", TREES)
def test_check_is_fine_with_a_complete_set(pathology, small, made, name):
    small(name)
    code, out, err = pathology("data", "check", made(name), "--decode", "all")
    assert code == 0, err
    assert out.startswith(f"{name}: ")
    assert ": fine" in out
    assert "licence    " in out


@pytest.mark.parametrize("name", [n for n in TREES if n not in ("tcga", "csv", "folder", "slides")])
def test_check_refuses_a_set_that_lacks_something(refused, made, tmp_path, name):
    path = made(name)
    assert str(path) in refused("data", "check", path, "--decode", "none")
    assert "--incomplete" in refused("data", "manifest", path, "--out", tmp_path / "m.csv")
    assert not (tmp_path / "m.csv").exists()


@pytest.mark.parametrize("name", TREES)
def test_manifest_is_one_that_others_read(pathology, made, tmp_path, name):
    out = tmp_path / "made" / "m.csv"
    code, said, err = pathology("data", "manifest", made(name), "--out", out, "--incomplete")
    assert code == 0, err
    assert "written    " in said
    if name in SLIDES:
        rows = read_slide_manifest(out)
    elif "next       pathology data split" in said:
        rows = read_table(out)  # no official split
        assert "split" not in rows
    else:
        rows = read_tile_manifest(out)
    assert len(rows)
    assert not any(Path(p).is_absolute() for p in out.read_text().splitlines()[1].split(","))
    if name not in SLIDES:
        index = rows["index"].iloc[-1] if "index" in rows else None
        assert read_image(rows["path"].iloc[-1], index).shape[2] == 3
    regions = out.parent / "regions.json"
    assert regions.exists() == ("regions" in rows)
    if regions.exists():
        assert list(read_classes(regions)) == ["tumour"]


def test_manifest_and_data_may_be_moved_together(pathology, tmp_path):
    folder, out = make_folder(tmp_path / "all" / "mine"), tmp_path / "all" / "m.csv"
    assert pathology("data", "manifest", folder, "--out", out)[0] == 0
    (tmp_path / "all").rename(tmp_path / "moved")
    assert len(read_tile_manifest(tmp_path / "moved" / "m.csv")) == 12


def test_a_relative_folder_and_the_folder_itself(pathology, tmp_path, monkeypatch):
    make_folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert pathology("data", "check", ".")[0] == 0
    assert pathology("data", "manifest", ".", "--out", "m.csv")[0] == 0
    assert len(read_tile_manifest("m.csv")) == 12


def test_nothing_recognised(refused, tmp_path):
    assert "no data set is recognised" in refused("data", "check", tmp_path)
    assert "no such folder" in refused("data", "check", tmp_path / "none")


def test_broken_images_are_listed(refused, pathology, tmp_path):
    folder = make_folder(tmp_path / "mine")
    broken = sorted((folder / "train").rglob("*.png"))
    for path in broken:
        path.write_bytes(path.read_bytes()[:60])
    line = refused("data", "check", folder)
    assert "of 12 tiles read, unreadable (4); all of it is in data_problems.txt" in line
    listed = Path("data_problems.txt").read_text()
    assert all(str(path) in listed for path in broken)
    code, out, _ = pathology("data", "check", folder, "--problems", "other.txt")
    assert code == 2
    assert " and 1 more" in out
    assert Path("other.txt").read_text() == listed


def test_manifest_leaves_out_empty_files_only_when_told(refused, pathology, tmp_path):
    folder = make_folder(tmp_path / "mine")
    (folder / "train" / "tumour" / "0.png").write_bytes(b"")
    line = refused("data", "manifest", folder, "--out", tmp_path / "m.csv")
    assert "files without contents (1)" in line
    out = tmp_path / "m.csv"
    assert pathology("data", "manifest", folder, "--out", out, "--incomplete")[0] == 0
    assert len(read_tile_manifest(out)) == 11


def test_what_is_wrong_rather_than_missing_is_never_accepted(refused, small, tmp_path):
    small("nct-crc-he")
    folder = make_nct_crc(tmp_path / "crc")
    tile = next((folder / "NCT-CRC-HE-100K" / "TUM").iterdir())
    tile.rename(folder / "NCT-CRC-HE-100K" / "ADI" / tile.name)
    line = refused("data", "manifest", folder, "--out", tmp_path / "m.csv", "--incomplete")
    assert "named after another class" in line
    assert line.endswith("correct them")


def test_leakage_is_found(refused, tmp_path):
    folder = make_folder(tmp_path / "mine")
    source = folder / "train" / "tumour" / "0.png"
    (folder / "test" / "tumour" / "1.png").write_bytes(source.read_bytes())
    assert "the same image in more than one split (leakage) (1)" in refused("data", "check", folder)


def test_checksums(refused, pathology, small, tmp_path):
    folder = make_tcga(tmp_path / "tcga")
    code, out, _ = pathology("data", "check", folder, "--checksums")
    assert code == 0
    assert "4 checksums: fine" in out
    path = next(folder.glob("*/*.svs"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    line = refused("data", "check", folder, "--checksums", "--decode", "none")
    assert "checksum is not the published one (1)" in line
    small("mhist")
    _, out, _ = pathology("data", "check", make_mhist(tmp_path / "mhist"), "--checksums")
    assert "no file here has a published checksum" in out


def test_proposed_splits(pathology, refused, small, tmp_path):
    out = tmp_path / "m.csv"
    for name, build in (("bach", make_bach), ("breakhis", make_breakhis)):
        small(name)
        folder = build(tmp_path / TREES[name][1])
        code, said, err = pathology("data", "manifest", folder, "--out", out, "--split", "proposed")
        assert code == 0, err
        assert set(read_tile_manifest(out)["split"]) == {"train", "val"}
        assert "proposed   " in said
    small("munich-aml")
    folder = make_munich_aml(tmp_path / "AML-Cytomorphology")
    line = refused("data", "manifest", folder, "--out", out, "--split", "proposed")
    assert "munich-aml: no split by others is known" in line


def test_an_official_split_can_be_left_away(pathology, small, tmp_path):
    small("mhist")
    folder, out = make_mhist(tmp_path / "mhist"), tmp_path / "m.csv"
    assert pathology("data", "manifest", folder, "--out", out, "--split", "none")[0] == 0
    assert "split" not in read_table(out)


def test_a_set_without_a_split_is_split_by_patient(pathology, small, tmp_path):
    small("breakhis")
    folder, out = make_breakhis(tmp_path / "BreaKHis_v1"), tmp_path / "m.csv"
    _, said, _ = pathology("data", "manifest", folder, "--out", out)
    assert f"next       pathology data split {out} --out" in said
    code, _, err = pathology(
        "data", "split", out, "--out", tmp_path / "split", "--stratify", "null", "--val", "0.3",
        "--test", "0.3",
    )  # fmt: skip
    assert code == 0, err
    rows = read_tile_manifest(tmp_path / "split" / "manifest.csv")
    assert set(rows["split"]) == {"train", "val", "test"}
    assert (rows.groupby("patient_id")["split"].nunique() == 1).all()
    assert read_image(rows["path"][0]).shape == (460, 700, 3)


def test_where_keeps_rows(pathology, refused, small, tmp_path):
    small("breakhis")
    folder, out = make_breakhis(tmp_path / "BreaKHis_v1"), tmp_path / "m.csv"
    arguments = ("data", "manifest", folder, "--out", out, "--where")
    assert pathology(*arguments, "magnification=40X,group=benign")[0] == 0
    rows = read_table(out)
    assert len(rows) == 4
    assert set(rows["magnification"]) == {"40X"}
    line = refused(*arguments, "magnification=50X")
    assert "no row has magnification '50X'; got 100X, 200X, 400X, 40X" in line
    assert "where must be COLUMN=VALUE" in refused(*arguments, "zoom=1")


def test_panda_masks_become_regions_of_one_provider(pathology, small, tmp_path):
    small("panda")
    folder = make_panda(tmp_path / "panda")
    assert pathology("data", "manifest", folder, "--out", tmp_path / "a" / "m.csv")[0] == 0
    assert "regions" not in read_slide_manifest(tmp_path / "a" / "m.csv")
    code, _, err = pathology(
        "data", "manifest", folder, "--out", tmp_path / "b" / "m.csv", "--where", "site=radboud"
    )
    assert code == 0, err
    assert "gleason 3" in read_classes(tmp_path / "b" / "regions.json")
    assert read_slide_manifest(tmp_path / "b" / "m.csv")["regions"].str.endswith(".tiff").all()


def test_regions_of_others_are_not_overwritten(pathology, refused, small, tmp_path):
    small("camelyon16")
    folder = make_camelyon16(tmp_path / "CAMELYON16")
    (tmp_path / "regions.json").write_text('{"mine": 1}')
    line = refused("data", "manifest", folder, "--out", tmp_path / "m.csv")
    assert "is there with other classes" in line
    assert not (tmp_path / "m.csv").exists()
    assert json.loads((tmp_path / "regions.json").read_text()) == {"mine": 1}
    (tmp_path / "regions.json").unlink()
    for _ in range(2):  # the second time they are its own
        assert pathology("data", "manifest", folder, "--out", tmp_path / "m.csv")[0] == 0


def test_camelyon_tiles_are_labelled_by_its_lesions(pathology, small, tmp_path):
    """All the way: folder, manifest, tiles with labels; holes are no tumour."""
    from pathology.tiling import TileGrid

    small("camelyon16")
    folder = make_camelyon16(tmp_path / "CAMELYON16")
    assert pathology("data", "manifest", folder, "--out", tmp_path / "slides.csv")[0] == 0
    code, _, err = pathology(
        "tile", "--slides", tmp_path / "slides.csv", "--out", tmp_path / "tiles",
        "--size-px", "32", "--tile-mpp", "0.25", "--min-tissue", "0",
    )  # fmt: skip
    assert code == 0, err
    grid = TileGrid.load(tmp_path / "tiles" / "tumor_001.parquet")
    boxes, labels = grid.boxes(), np.asarray(grid.columns["label"])
    # Of the lesion, 100 x 100 px at the corner, three tiles a side are inside.
    inside = (boxes[:, 0] + 32 <= 100) & (boxes[:, 1] + 32 <= 100)
    assert inside.sum() == 9
    assert (labels[inside] == "tumour").all()
    assert (labels[(boxes[:, 0] >= 100)] == "").all()


@pytest.mark.parametrize("name", ["pcam", "medmnist", "mhist"])
def test_training_reads_what_was_written(pathology, made, tmp_path, name):
    from pathology.data.modules import TileDataModule

    out = tmp_path / "m.csv"
    assert pathology("data", "manifest", made(name), "--out", out, "--incomplete")[0] == 0
    rows = read_tile_manifest(out)
    classes = sorted(rows["label"].unique())
    module = TileDataModule(str(out), classes, batch_size=2, num_workers=0)
    part = rows[rows["split"] == "test"].reset_index(drop=True)
    images = [image for batch in module.loader("test") for image in batch["image"]]
    assert len(images) == len(part)
    for i, image in enumerate(images):
        index = part["index"][i] if "index" in part else None
        np.testing.assert_array_equal(
            image.numpy().transpose(1, 2, 0), read_image(part["path"][i], index)
        )


def test_the_rest_of_a_slide_is_normal_where_lesions_are_drawn_exhaustively(
    pathology, refused, small, tmp_path
):
    from pathology.tiling import TileGrid

    small("camelyon16")
    folder, out = make_camelyon16(tmp_path / "CAMELYON16"), tmp_path / "m" / "slides.csv"
    code, _, err = pathology("data", "manifest", folder, "--out", out, "--rest")
    assert code == 0, err
    rows = read_slide_manifest(out).set_index("slide_id")
    # tumor_010 is annotated in part: only what was drawn is known of it.
    assert rows.loc["tumor_010", "regions"].endswith("tumor_010.xml")
    assert rows.loc["normal_001", "regions"] == str(out.parent / "regions" / "normal_001.geojson")
    code, _, err = pathology(
        "tile", "--slides", out, "--out", tmp_path / "tiles",
        "--size-px", "32", "--tile-mpp", "0.25", "--min-tissue", "0",
    )  # fmt: skip
    assert code == 0, err
    labels = {}
    for name in ("normal_001", "tumor_001", "tumor_010"):
        grid = TileGrid.load(tmp_path / "tiles" / f"{name}.parquet")
        labels[name] = grid.boxes(), np.asarray(grid.columns["label"])
    assert set(labels["normal_001"][1]) == {"normal"}
    boxes, label = labels["tumor_001"]
    right, bottom = (boxes[:, :2] + 32).T
    assert (label[(right <= 100) & (bottom <= 100)] == "tumour").all()
    assert (label[boxes[:, 1] >= 100] == "normal").all()  # below the lesion and its hole
    assert set(labels["tumor_010"][1]) == {"tumour", ""}
    small("mhist")
    line = refused("data", "manifest", make_mhist(tmp_path / "mhist"), "--out", out, "--rest")
    assert "rest is for data sets whose lesions are drawn" in line


def test_the_rest_of_camelyon17_is_not_known_beside_isolated_cells(pathology, small, tmp_path):
    small("camelyon17")
    folder = make_camelyon17(tmp_path / "CAMELYON17")
    stages = folder / "training" / "stages.csv"
    node = "patient_020_node_2.tif"
    stages.write_text(stages.read_text().replace(f"{node},negative", f"{node},itc"))
    out = tmp_path / "m" / "slides.csv"
    assert pathology("data", "manifest", folder, "--out", out, "--rest")[0] == 0
    regions = read_slide_manifest(out).set_index("slide_id")["regions"]
    assert regions["patient_020_node_2"] == ""
    assert regions["patient_100_node_0"] == ""  # of the test part, unlabelled
    assert regions["patient_020_node_1"].endswith("regions/patient_020_node_1.geojson")
    assert regions["patient_000_node_0"].endswith("regions/patient_000_node_0.geojson")
    classes = read_classes(out.parent / "regions.json")
    assert list(classes) == ["tumour", "normal"]
    assert classes["tumour"].exclude == ("normal",)  # the group of that name, within lesions


def test_labels_of_a_clinical_table(pathology, refused, tmp_path):
    folder, out = make_tcga(tmp_path / "tcga", sheet=False), tmp_path / "m.csv"
    clinical = table(
        tmp_path / "clini.csv",
        [("PATIENT", "MSI"), ("TCGA-A2-A0YE", "high"), ("TCGA-EJ-7791", "stable")],
    )
    code, said, err = pathology(
        "data", "manifest", folder, "--out", out, "--labels", clinical, "--label-column", "MSI",
        "--where", "preservation=FFPE",
    )  # fmt: skip
    assert code == 0, err
    rows = read_slide_manifest(out)
    assert dict(zip(rows["patient_id"], rows["label"], strict=True)) == {
        "TCGA-A2-A0YE": "high", "TCGA-EJ-7791": "stable",
    }  # fmt: skip
    assert "1 of 4 rows have no MSI" in said
    by_slide = table(
        tmp_path / "slide.tsv", [("FILENAME", "MSI"), (f"{BARCODES[0]}.svs", "high")], "\t"
    )
    arguments = ("data", "manifest", folder, "--out", out, "--label-column", "MSI", "--labels")
    assert pathology(*arguments, by_slide)[0] == 0
    labels = read_slide_manifest(out).set_index("slide_id")["label"]
    assert labels[BARCODES[0]] == "high"
    assert set(labels.drop(BARCODES[0])) == {""}
    twice = table(
        tmp_path / "twice.csv", [("PATIENT", "MSI"), ("TCGA-A2-A0YE", "a"), ("TCGA-A2-A0YE", "b")]
    )
    assert "'TCGA-A2-A0YE' has more than one MSI" in refused(*arguments, twice)
    other = table(tmp_path / "other.csv", [("name", "MSI"), ("x", "a")])
    assert "no column names patients or slides" in refused(*arguments, other)
    assert "say which column of --labels" in refused(*arguments[:5], "--labels", other)


def test_what_is_wrong_with_a_table_is_said_of_the_file_asked_for(refused, tmp_path):
    picture(tmp_path / "a.png", (8, 8))
    (tmp_path / "slides.csv").write_text("slide_id,path,mpp\ns,a.png,half\n")
    line = refused("data", "manifest", tmp_path, "--out", tmp_path / "out" / "slides.csv")
    assert f"{tmp_path / 'out' / 'slides.csv'}: row 2 has mpp 'half'" in line
    assert not (tmp_path / "out" / "slides.csv").exists()


def test_oblong_images_are_trained_on_by_their_middle(refused, pathology, tmp_path):
    """From BACH as it lies on a disk to a trained model."""
    folder, out = make_bach(tmp_path / "bach"), tmp_path / "tiles.csv"
    picture(folder / "Photos" / "Normal" / "n050.tif", (2048, 1536))
    words = "data", "manifest", folder, "--out", out, "--split", "proposed", "--incomplete"
    code, told, _ = pathology(*words)
    assert code == 0
    assert "--data.crop centre" in told
    train = [
        "train", "--out", tmp_path / "run", "--model.model", "bcos_vit_tiny_patch16_224",
        "--model.model_args", "{img_size: 32, depth: 1}", "--data.manifest", out,
        "--data.classes", "[Benign, InSitu, Invasive, Normal]", "--data.size_px", "32",
        "--data.batch_size", "4", "--data.num_workers", "0", "--trainer.max_epochs", "1",
        "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false",
        "--trainer.log_every_n_steps", "1",
    ]  # fmt: skip
    assert "must be square, got 2048 x 1536 px" in refused(*train)
    assert pathology(*train, "--data.crop", "centre")[0] == 0
    assert pathology("evaluate", "--run", tmp_path / "run", "--out", tmp_path / "measured")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all names are text")
def test_a_name_that_is_not_text_is_named(refused, tmp_path):
    for label in "ab":
        picture(tmp_path / label / "0.png", (8, 8))
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / os.fsdecode(b"T\xfcr.png"))
    line = refused("data", "manifest", tmp_path, "--out", tmp_path / "tiles.csv")
    assert r"T\udcfcr.png': the name is not UTF-8" in line


def test_columns_of_a_csv_table(pathology, refused, tmp_path):
    folder = make_csv(tmp_path / "mine")
    path = folder / "list.csv"
    path.write_text(path.read_text().replace("Diagnosis", "what"))
    line = refused("data", "check", folder)
    assert "which column is the label? Say it with --label-column, one of what" in line
    code, out, _ = pathology("data", "check", path, "--label-column", "what")
    assert code == 0
    assert "labels are those of column what" in out
    assert "patients   6" in out


def test_patients_are_found_in_names(pathology, refused, tmp_path):
    folder, out = tmp_path / "mine", tmp_path / "m.csv"
    for i in range(24):
        picture(folder / ("normal", "tumour")[i % 2] / f"p{i // 4:02d}_{i}.png", (16, 16))
    same = ("data", "manifest", folder, "--out", out, "--patient-pattern")
    for pattern, message in (
        ("(p[0-9]+", "'(p[0-9]+': missing )"),
        ("p[0-9]+", "needs one group"),
        ("(p0[0-4])_", "no patient in normal/p05_20.png (4 of 24 files)"),
    ):
        assert message in refused(*same, pattern)
        assert not out.exists()
    code, said, err = pathology(*same, "(p[0-9]+)_")
    assert code == 0, err
    assert "patients   6" in said
    assert "tells patients" not in said
    assert "patients are told already" in refused(
        "data", "manifest", out, "--out", tmp_path / "n.csv", "--patient-pattern", "(p)"
    )
    assert pathology("data", "split", out, "--out", tmp_path / "split")[0] == 0
    rows = read_table(tmp_path / "split" / "manifest.csv")
    assert set(rows["split"]) == {"train", "val", "test"}
    assert (rows.groupby("patient_id")["split"].nunique() == 1).all()
    assert (rows["patient_id"] == [Path(path).name[:3] for path in rows["path"]]).all()


def test_a_folder_that_cannot_be_written(refused, tmp_path):
    folder = make_folder(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    line = refused("data", "manifest", folder, "--out", tmp_path / "file" / "m.csv")
    assert "cannot be written" in line


def test_names_with_spaces_and_other_letters(pathology, tmp_path):
    folder = tmp_path / "Prüf satz"
    for name in ("gut, artig", "bös\u0308artig"):
        for i in range(2):
            picture(folder / name / f"{i} ä.png", (16, 16))
    out = tmp_path / "m.csv"
    assert pathology("data", "manifest", folder, "--out", out)[0] == 0
    rows = read_table(out)
    assert set(rows["label"]) == {"gut, artig", "bös\u0308artig"}
    assert all(read_image(path).shape == (16, 16, 3) for path in rows["path"])


REAL = Path(os.environ.get("BCOS_PATHOLOGY_DATA", "../shared/data"))


@pytest.mark.real_slides
@pytest.mark.parametrize(
    ("name", "column", "count", "problem"),
    [
        ("oral_oscc224", "", 844, ""),
        # Four of its nuclei are there twice, under two labels.
        ("crc_nuclei_patches", "cell_type", 7_511, "the same image under more than one label (2)"),
        ("dsb2018_brightfield", "stain_group", 107, ""),
    ],
)
def test_real_folders(pathology, tmp_path, name, column, count, problem):
    folder = Path(__file__).parents[2] / REAL / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set BCOS_PATHOLOGY_DATA to a folder that has {name}")
    code, out, err = pathology("data", "check", folder, "--label-column", column)
    assert code == (2 if problem else 0)
    assert problem in err
    code, _, err = pathology(
        "data", "manifest", folder, "--label-column", column, "--out", tmp_path / "m.csv"
    )
    assert code == 0, err
    rows = read_table(tmp_path / "m.csv")
    assert len(rows) == count
    assert ("patient_id" in rows) == (name == "crc_nuclei_patches")
    assert "csv: " in out
