"""The page's modules: what imports what, without a browser."""

import re
from pathlib import Path

import pytest

from pathology.viewer.app import STATIC

LAYERS = ["", "tools", "frame", "list", "panes", "base"]
"""Folders of the page; each imports from those behind it alone."""
IMPORT = re.compile(r'\b(?:from|import)\s*\(?\s*"(\.\.?/[^"]+)"')
MODULES = sorted(
    path.relative_to(STATIC).as_posix()
    for path in STATIC.rglob("*.js")
    if path.parent.name != "openseadragon"
)


def folder(path: Path) -> str:
    return path.relative_to(STATIC).parent.as_posix().removeprefix(".")


@pytest.mark.parametrize("name", MODULES)
def test_imports_exist_and_read_downwards(name: str) -> None:
    here = STATIC / name
    for other in IMPORT.findall(here.read_text(encoding="utf-8")):
        there = (here.parent / other).resolve()
        assert there.is_file(), f"{name} imports {other}"
        ours, theirs = LAYERS.index(folder(here)), LAYERS.index(folder(there))
        assert ours <= theirs, f"{name} imports {other}, upwards"


def test_every_module_is_imported() -> None:
    imported = {
        (STATIC / name).parent.joinpath(other).resolve().relative_to(STATIC).as_posix()
        for name in MODULES
        for other in IMPORT.findall((STATIC / name).read_text(encoding="utf-8"))
    }
    assert set(MODULES) - imported == {"page.js", "notebook_loader.js"}
