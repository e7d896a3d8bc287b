"""Splits keep groups together, spread labels, and are refused once they were changed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pathology.data.manifest import read_slide_manifest, read_tile_manifest
from pathology.data.splits import SplitSpec, row_groups, split_manifest
from pathology.errors import LeakageError, ManifestError, OutputError, StampMismatchError


def cohort(folder, patients=40, slides=3, sites=8, rare=0.3):
    """A manifest of ``patients * slides`` slides; a patient has one label and one site."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        label = "tumour" if rng.random() < rare else "normal"
        for slide in range(1 + rng.integers(slides)):
            name = f"p{patient}_{slide}"
            (folder / f"{name}.svs").touch()
            rows.append((name, f"{name}.svs", f"p{patient}", f"s{patient % sites}", label))
    table = pd.DataFrame(rows, columns=["slide_id", "path", "patient_id", "site", "label"])
    path = folder / "slides.csv"
    table.to_csv(path, index=False)
    return path


def straddling(table, column):
    """Values of ``column`` that are in more than one split."""
    return [value for value, rows in table.groupby(column) if rows["split"].nunique() > 1]


def test_one_split_keeps_patients_and_comes_close_to_the_fractions(tmp_path):
    source = cohort(tmp_path, patients=100)
    table = split_manifest(source, tmp_path / "out", SplitSpec(val=0.2, test=0.2))["manifest.csv"]
    assert straddling(table, "patient_id") == []
    share = table["split"].value_counts(normalize=True)
    # A fold is a twentieth at the finest and patients have up to three slides.
    assert abs(share["test"] - 0.2) < 0.06
    assert abs(share["val"] - 0.2) < 0.06
    overall = (table["label"] == "tumour").mean()
    for _, rows in table.groupby("split"):
        assert abs((rows["label"] == "tumour").mean() - overall) < 0.12


def test_a_split_is_a_manifest_that_can_be_read(tmp_path):
    source = cohort(tmp_path)
    tables = split_manifest(source, tmp_path / "deep" / "out", SplitSpec())
    read = read_slide_manifest(tmp_path / "deep" / "out" / "manifest.csv")
    assert list(read["slide_id"]) == list(tables["manifest.csv"]["slide_id"])
    assert all(path.is_absolute() and path.is_file() for path in map(Path, read["path"]))


def test_every_row_is_tested_by_exactly_one_fold(tmp_path):
    tables = split_manifest(cohort(tmp_path), tmp_path / "out", SplitSpec(folds=5))
    assert sorted(tables) == [f"fold_{i}.csv" for i in range(5)]
    tested = sum((table["split"] == "test").to_numpy().astype(int) for table in tables.values())
    assert (tested == 1).all()
    validated = sum((table["split"] == "val").to_numpy().astype(int) for table in tables.values())
    assert (validated == 1).all()
    for table in tables.values():
        assert straddling(table, "patient_id") == []


def test_sites_stay_together_when_asked(tmp_path):
    source = cohort(tmp_path, patients=120, sites=12)
    by_patient = split_manifest(source, tmp_path / "a", SplitSpec(folds=4))
    by_site = split_manifest(
        source, tmp_path / "b", SplitSpec(folds=4, groups=("patient_id", "site"))
    )
    assert any(straddling(table, "site") for table in by_patient.values())
    for table in by_site.values():
        assert straddling(table, "site") == []
        assert straddling(table, "patient_id") == []


def test_the_seed_decides_and_nothing_else(tmp_path):
    source = cohort(tmp_path)
    a, b, c = (
        split_manifest(source, tmp_path / name, SplitSpec(seed=seed))["manifest.csv"]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert list(a["split"]) == list(b["split"])
    assert list(a["split"]) != list(c["split"])


def unequal(folder, sizes, labels="ab"):
    """A manifest of tiles of which patient ``i`` has ``sizes[i]``, and one label."""
    (folder / "x.npy").touch()
    owners = [i for i, size in enumerate(sizes) for _ in range(size)]
    lines = [f"x.npy,{i},{labels[p % len(labels)]},p{p}" for i, p in enumerate(owners)]
    path = folder / "tiles.csv"
    path.write_text("path,index,label,patient_id\n" + "\n".join(lines) + "\n")
    return path


def test_the_seed_decides_where_no_two_patients_are_alike(tmp_path):
    source = unequal(tmp_path, range(20, 60))
    tested = set()
    for seed in range(4):
        table = split_manifest(source, tmp_path / str(seed), SplitSpec(seed=seed))["manifest.csv"]
        tested.add(frozenset(table["patient_id"][table["split"] == "test"]))
        share = table["split"].value_counts(normalize=True)
        assert abs(share["test"] - 0.15) + abs(share["val"] - 0.15) < 0.03
    assert len(tested) == 4


def test_a_patient_larger_than_the_test_part_is_trained_on(tmp_path):
    source = unequal(tmp_path, [400, *range(20, 50)])  # over a quarter of all rows
    for seed in range(3):
        table = split_manifest(source, tmp_path / str(seed), SplitSpec(seed=seed))["manifest.csv"]
        assert set(table["split"][table["patient_id"] == "p0"]) == {"train"}
        assert 0.1 < (table["split"] == "test").mean() < 0.2


def test_a_rare_label_does_not_make_the_parts_large(tmp_path):
    """Three of sixty patients: each part has one, and is as large as asked for."""
    source = unequal(tmp_path, [30] * 60, labels="r" + "a" * 19)
    table = split_manifest(source, tmp_path / "out", SplitSpec())["manifest.csv"]
    rare = table[table["label"] == "r"]
    assert sorted(rare.groupby("split")["patient_id"].nunique()) == [1, 1, 1]
    assert 0.1 < (table["split"] == "test").mean() < 0.2


def test_folds_of_unequal_patients_are_even(tmp_path):
    """As even as scikit-learn makes them."""
    from sklearn.model_selection import StratifiedGroupKFold

    source = unequal(tmp_path, np.random.default_rng(0).integers(20, 90, 40), labels="aabc")
    tables = split_manifest(source, tmp_path / "out", SplitSpec(folds=5))
    table = tables["fold_0.csv"]
    labels, patients = table["label"].to_numpy(), table["patient_id"].to_numpy()
    theirs = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, patients)

    def worst(parts):
        """Largest distance of a label's share in a fold from a fifth of it."""
        return max(
            abs((labels[part] == label).sum() / (labels == label).sum() - 0.2)
            for part in parts
            for label in "abc"
        )

    ours = worst([np.flatnonzero(t["split"] == "test") for t in tables.values()])
    assert ours < worst([part for _, part in theirs]) + 0.03


def test_patients_stay_together_whatever_groups_are_named(tmp_path):
    source = cohort(tmp_path)
    split_manifest(source, tmp_path / "out", SplitSpec(groups=()))
    assert straddling(read_slide_manifest(tmp_path / "out" / "manifest.csv"), "patient_id") == []


def test_rows_of_unknown_slides_and_patients_are_not_one_group(tmp_path):
    table = pd.DataFrame(
        {"path": list("abcd"), "slide_id": ["", "", "s", "s"], "patient_id": ["", "p", "", "p"]}
    )
    assert list(row_groups(tmp_path, table, ())) == [0, 1, 1, 1]


def test_a_file_is_one_however_its_path_is_spelt(tmp_path):
    table = pd.DataFrame({"path": ["a/b.h5", "a/c/../b.h5", "a/b.h5"], "index": ["7", "07", "70"]})
    assert list(row_groups(tmp_path, table, ())) == [0, 0, 1]


def test_the_source_is_never_replaced(tmp_path):
    source = cohort(tmp_path).rename(tmp_path / "manifest.csv")
    before = source.read_bytes()
    with pytest.raises(ManifestError, match="would be replaced by its split"):
        split_manifest(source, tmp_path, SplitSpec())
    assert source.read_bytes() == before
    assert not (tmp_path / "splits.json").exists()


def test_a_file_for_a_folder_is_refused_as_such(tmp_path):
    source = cohort(tmp_path)
    with pytest.raises(OutputError, match=r"slides\.csv"):
        split_manifest(source, source, SplitSpec())


def test_other_line_ends_are_no_edit(tmp_path):
    """Version control may change them on the way to another machine."""
    source = cohort(tmp_path)
    split_manifest(source, tmp_path / "out", SplitSpec())
    path = tmp_path / "out" / "manifest.csv"
    assert b"\r" not in path.read_bytes()
    read = read_slide_manifest(path)
    for file in (path, source):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_slide_manifest(path), read)
    split_manifest(source, tmp_path / "out", SplitSpec())


def test_a_split_moves_with_its_files(tmp_path):
    (tmp_path / "here").mkdir()
    split_manifest(cohort(tmp_path / "here"), tmp_path / "here" / "out", SplitSpec())
    (tmp_path / "here").rename(tmp_path / "there")
    table = read_slide_manifest(tmp_path / "there" / "out" / "manifest.csv")
    assert all("there" in path for path in table["path"])


def test_a_split_that_would_come_out_otherwise_is_not_replaced(tmp_path, monkeypatch):
    """Of another version of this software, that is."""
    source = cohort(tmp_path)
    split_manifest(source, tmp_path / "out", SplitSpec())
    before = (tmp_path / "out" / "manifest.csv").read_bytes()
    monkeypatch.setattr(
        "pathology.data.splits._fold_numbers", lambda groups, strata, folds, seed: groups % folds
    )
    with pytest.raises(StampMismatchError, match="into other splits by another version"):
        split_manifest(source, tmp_path / "out", SplitSpec())
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == before


def test_rows_hang_together_by_any_of_their_groups(tmp_path):
    table = pd.DataFrame(
        {
            "path": ["a", "b", "c", "d", "a"],
            "patient_id": ["p1", "p2", "p2", "p3", "p4"],
            "site": ["s1", "s1", "s2", "s3", "s4"],
        }
    )
    # p1 and p2 share a site; p4 has p1's very file; p3 is alone.
    assert list(row_groups(tmp_path, table, ("patient_id", "site"))) == [0, 0, 0, 1, 0]
    assert list(row_groups(tmp_path, table, ("patient_id",))) == [0, 1, 1, 2, 0]


def test_places_in_an_array_are_files_of_their_own(tmp_path):
    table = pd.DataFrame({"path": ["x.h5"] * 3, "index": ["0", "1", "0"]})
    assert list(row_groups(tmp_path, table, ())) == [0, 1, 0]


def test_a_rare_label_gets_larger_folds_rather_than_none(tmp_path):
    """Three patients with a tumour: one each for train, val and test."""
    rows = [f"s{i},s.svs,p{i},{'tumour' if i < 3 else 'normal'}" for i in range(60)]
    for i in range(60):
        (tmp_path / f"s{i}.svs").touch()
    text = "slide_id,path,patient_id,label\n" + "\n".join(
        row.replace("s.svs", f"s{i}.svs") for i, row in enumerate(rows)
    )
    source = tmp_path / "slides.csv"
    source.write_text(text + "\n")
    table = split_manifest(source, tmp_path / "out", SplitSpec())["manifest.csv"]
    assert set(table["split"][table["label"] == "tumour"]) == {"train", "val", "test"}


def test_a_label_of_too_few_patients_is_refused_by_name(tmp_path):
    source = cohort(tmp_path)
    text = source.read_text().replace("p1_0,p1_0.svs,p1,s1,", "p1_0,p1_0.svs,p1,s1,odd-")
    source.write_text(text)
    with pytest.raises(ManifestError, match=r"'odd-.*of 1 groups did not do for all splits"):
        split_manifest(source, tmp_path / "out", SplitSpec())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(",p1,", ",,"), "has no patient_id"),
        (lambda text: text.replace("patient_id", "person"), "column 'patient_id' is missing"),
        (lambda text: text.replace(",label", ",grade"), "'label' to stratify by is missing"),
    ],
)
def test_what_cannot_be_split_is_said(tmp_path, change, said):
    source = cohort(tmp_path)
    source.write_text(change(source.read_text()))
    with pytest.raises(ManifestError, match=said):
        split_manifest(source, tmp_path / "out", SplitSpec())
    assert not (tmp_path / "out").exists()


def test_more_folds_than_patients(tmp_path):
    with pytest.raises(ManifestError, match="4 groups cannot make 5 folds"):
        split_manifest(cohort(tmp_path, patients=4), tmp_path / "out", SplitSpec(folds=5))


@pytest.mark.parametrize(
    "arguments", [{"folds": 2}, {"val": 1.0}, {"test": -0.1}, {"val": 0.6, "test": 0.4}]
)
def test_a_spec_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match=r"must be|leave nothing"):
        SplitSpec(**arguments)


def test_an_edited_split_is_refused(tmp_path):
    split_manifest(cohort(tmp_path), tmp_path / "out", SplitSpec())
    path = tmp_path / "out" / "manifest.csv"
    path.write_text(path.read_text().replace(",tumour,", ",benign,", 1))
    with pytest.raises(ManifestError, match="changed since it was split"):
        read_slide_manifest(path)
    moved = tmp_path / "mine.csv"
    moved.write_text(path.read_text().replace("../", ""))
    assert len(read_slide_manifest(moved))


def test_another_split_into_the_same_folder_is_refused(tmp_path):
    source = cohort(tmp_path)
    split_manifest(source, tmp_path / "out", SplitSpec())
    before = (tmp_path / "out" / "splits.json").read_bytes()
    split_manifest(source, tmp_path / "out", SplitSpec())
    assert (tmp_path / "out" / "splits.json").read_bytes() == before
    with pytest.raises(StampMismatchError, match="another spec"):
        split_manifest(source, tmp_path / "out", SplitSpec(seed=7))
    source.write_text(source.read_text().replace("tumour", "cancer"))
    with pytest.raises(StampMismatchError, match="another source"):
        split_manifest(source, tmp_path / "out", SplitSpec())


def test_what_was_written_is_summed_up(tmp_path):
    tables = split_manifest(cohort(tmp_path), tmp_path / "out", SplitSpec(folds=3))
    made = json.loads((tmp_path / "out" / "splits.json").read_text())
    for name, table in tables.items():
        digest = hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        assert made["manifests"][name]["sha256"] == digest
        assert sum(made["manifests"][name]["rows"].values()) == len(table)


def test_a_split_in_the_source_is_replaced(tmp_path):
    (tmp_path / "a.png").touch()
    rows = [f"{i}.png,{'xy'[i % 2]},train,p{i}" for i in range(30)]
    for i in range(30):
        (tmp_path / f"{i}.png").touch()
    source = tmp_path / "tiles.csv"
    source.write_text("path,label,split,patient_id\n" + "\n".join(rows) + "\n")
    split_manifest(source, tmp_path / "out", SplitSpec())
    read = read_tile_manifest(tmp_path / "out" / "manifest.csv")
    assert set(read["split"]) == {"train", "val", "test"}


def test_leakage_names_value_and_rows(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").touch()
    path = tmp_path / "tiles.csv"
    header = "path,label,split,slide_id\n"
    path.write_text(header + "a.png,x,train,s1\nb.png,x,test,s1\nc.png,x,val,s2\n")
    with pytest.raises(
        LeakageError, match=r"slide_id .*'s1' in train \(row 2\) and test \(row 3\)"
    ):
        read_tile_manifest(path)
    path.write_text(header + "a.png,x,train,s1\nb.png,x,train,s1\na.png,x,val,s2\n")
    with pytest.raises(LeakageError, match=r"values of path .*train \(row 2\) and val \(row 4\)"):
        read_tile_manifest(path)


def official(folder, patients=60):
    """A manifest with an authors' test split: the last third of the patients."""
    source = cohort(folder, patients=patients)
    table = pd.read_csv(source, dtype=str)
    number = table["patient_id"].str[1:].astype(int)
    table["split"] = np.where(number >= patients * 2 // 3, "test", "train")
    table.to_csv(source, index=False)
    return source


def test_the_authors_test_split_can_be_kept(tmp_path):
    source = official(tmp_path)
    before = pd.read_csv(source, dtype=str)
    spec = SplitSpec(val=0.25, keep_test=True)
    table = split_manifest(source, tmp_path / "out", spec)["manifest.csv"]
    assert list(table["slide_id"]) == list(before["slide_id"])
    assert list(table["split"] == "test") == list(before["split"] == "test")
    rest = table[table["split"] != "test"]
    assert abs((rest["split"] == "val").mean() - 0.25) < 0.06
    assert straddling(table, "patient_id") == []


def test_folds_beside_a_kept_test_split_take_turns_at_validation(tmp_path):
    source = official(tmp_path)
    tables = split_manifest(source, tmp_path / "out", SplitSpec(folds=4, keep_test=True))
    in_test = pd.read_csv(source, dtype=str)["split"] == "test"
    for table in tables.values():
        assert list(table["split"] == "test") == list(in_test)
    validated = sum((table["split"] == "val").to_numpy().astype(int) for table in tables.values())
    assert (validated == ~in_test).all()


def test_a_patient_on_both_sides_of_a_kept_test_split_is_leakage(tmp_path):
    source = official(tmp_path)
    table = pd.read_csv(source, dtype=str)
    table.loc[0, "patient_id"] = table["patient_id"].iloc[-1]
    table.to_csv(source, index=False)
    with pytest.raises(LeakageError, match="patient_id"):
        split_manifest(source, tmp_path / "out", SplitSpec(keep_test=True))


def test_there_must_be_a_test_split_to_keep(tmp_path):
    with pytest.raises(ManifestError, match="no row has split 'test'"):
        split_manifest(cohort(tmp_path), tmp_path / "out", SplitSpec(keep_test=True))


def test_images_may_be_called_files_and_lie_in_a_folder_of_their_own(tmp_path):
    (tmp_path / "images").mkdir()
    rows = [{"file": f"{i}.png", "label": "ab"[i % 2], "patient_id": f"p{i}"} for i in range(40)]
    for row in rows:
        (tmp_path / "images" / row["file"]).touch()
    source = tmp_path / "tiles.csv"
    pd.DataFrame(rows).to_csv(source, index=False)
    split_manifest(source, tmp_path / "out", SplitSpec(groups=("patient_id",)))
    table = read_tile_manifest(tmp_path / "out" / "manifest.csv")
    found = [Path(path).resolve() for path in table["path"]]
    assert found == [tmp_path / "images" / row["file"] for row in rows]
