"""Files of the project that its pages name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"(?<![\w/])(?:configs|scripts)/[\w/*-]+(?:\.\w+)?")


def named():
    """(page, file) of all pages but those that Sphinx wrote."""
    for page in PAGES:
        if "_build" not in page.parts:
            for name in dict.fromkeys(NAMED.findall(page.read_text())):
                yield page.relative_to(ROOT).as_posix(), name


@pytest.mark.parametrize("page", sorted({page for page, _ in named()}))
def test_files_that_a_page_names_are_there(page):
    missing = [name for where, name in named() if where == page and not exists(name)]
    assert not missing


def exists(name):
    """A file, a folder, a pattern of files, or a Python script named without its ending."""
    return any(any(ROOT.glob(one)) for one in (name, f"{name}.py"))
