"""``pathology data split``."""

import pytest

from pathology.cli import main
from pathology.data.manifest import read_slide_manifest


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for i in range(60):
        (tmp_path / f"s{i}.svs").touch()
        rows.append(f"s{i},s{i}.svs,p{i // 2},h{i // 12},{'ab'[i // 2 % 2]}")
    path = tmp_path / "slides.csv"
    path.write_text("slide_id,path,patient_id,site,label\n" + "\n".join(rows) + "\n")
    return path


def run(*words):
    return main(["data", "split", *map(str, words)])


def test_a_split_is_written_and_told(manifest, tmp_path, capsys):
    out = tmp_path / "split"
    assert run("--manifest", manifest, "--out", out, "--val", "0.2", "--test", "0.2") == 0
    told = capsys.readouterr().out
    table = read_slide_manifest(out / "manifest.csv")
    for name in ("train", "val", "test"):
        rows = table[table["split"] == name]
        assert f"{name} {len(rows)} rows, {rows['patient_id'].nunique()} patient_id" in told
        assert f"a {(rows['label'] == 'a').sum()}" in told


def test_folds_by_site(manifest, tmp_path):
    out = tmp_path / "folds"
    words = ("--folds", "5", "--groups", "patient_id,site", "--stratify", "null")
    assert run("--manifest", manifest, "--out", out, *words) == 0
    for i in range(5):
        table = read_slide_manifest(out / f"fold_{i}.csv")
        assert table.groupby("site")["split"].nunique().max() == 1


def test_errors_are_one_line_and_two(manifest, tmp_path, capsys):
    assert run("--manifest", manifest, "--out", tmp_path / "x", "--groups", "hospital") == 2
    assert "column 'hospital' is missing" in capsys.readouterr().err
    assert run("--manifest", manifest, "--out", tmp_path / "x", "--folds", "2") == 2
    assert "folds must be 0 or at least 3" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
