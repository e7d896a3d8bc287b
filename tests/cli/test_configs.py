"""configs: the shipped configs as files, and none of the user's is replaced unasked."""

from pathlib import Path

import pathology as package
from pathology.cli import installation, shipped

CONFIGS = Path(__file__).parents[2] / "configs"


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_all_of_them_are_written(pathology, tmp_path):
    code, out, _ = pathology("configs", "--out", tmp_path / "configs")
    assert code == 0
    assert files(tmp_path / "configs") == files(CONFIGS)
    assert (tmp_path / "configs" / "train" / "bcos_vitc_tiny_slides.yaml").is_file()
    assert f"{len(files(CONFIGS))} files" in out


def test_what_was_changed_is_kept(pathology, refused, tmp_path):
    pathology("configs", "--out", tmp_path)
    mine = tmp_path / "smoke" / "mil.yaml"
    mine.write_text("mine")
    (tmp_path / "README.md").unlink()
    assert "smoke/mil.yaml" in refused("configs", "--out", tmp_path)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "README.md").exists()
    code, out, _ = pathology("configs", "--out", tmp_path, "--overwrite")
    assert (code, "2 of them new" in out) == (0, True)
    assert files(tmp_path) == files(CONFIGS)


def test_an_installed_package_has_them_inside(monkeypatch, tmp_path):
    """In a wheel they lie in the package; whatever is called so beside it is somebody else's."""
    inside, beside = tmp_path / "site" / "pathology" / "configs", tmp_path / "site" / "configs"
    inside.mkdir(parents=True)
    beside.mkdir()
    monkeypatch.setattr(package, "__file__", str(inside.parent / "__init__.py"))
    assert shipped.shipped("configs") == inside
    (inside.parent / "constraints.txt").write_text("# pins\ntimm==1.2\nA_b.c==3\n")
    assert installation.tested_versions() == {"timm": "1.2", "a-b-c": "3"}
