"""The page on installing: its commands run, and what it says of files and versions is so."""

import re
import sys
from pathlib import Path

import pytest

import bcos_vit
from pathology.cli import doctor
from tests.docs.pages import DOCS, run_page

PAGE = (DOCS / "how-to" / "install.md").read_text()


def test_its_commands_run(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_chain", lambda _: "explained")  # tests/cli runs it
    ran = run_page("how-to/install.md", tmp_path, monkeypatch)
    assert ran.output_of("pathology --version").strip() == bcos_vit.__version__
    assert ran.output_of("pathology doctor").endswith("all well\n")
    assert list((tmp_path / "configs" / "train").glob("*.yaml"))


def test_the_wheel_that_it_names_is_of_this_version():
    assert set(re.findall(r"bcos_pathology-([\d.]+)-py3", PAGE)) == {bcos_vit.__version__}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the page tells of another Python")
def test_the_python_that_runs_the_tests_is_named():
    assert "3.11 runs the tests" in PAGE


def test_the_sum_of_extras_is_not_below_any_of_them():
    sizes = [float(size) for size in re.findall(r"^\| `\[\w+\]` .* \| ([\d.]+) \|$", PAGE, re.M)]
    every = float(re.search(r"^\| all extras together .* \| ([\d.,]+) \|$", PAGE, re.M)[1])
    assert max(sizes) < every <= sum(sizes)


def test_scripts_that_it_names_are_there():
    for name in re.findall(r"scripts/\w+(?:\.py)?", PAGE):
        assert (DOCS.parent / Path(name)).is_file(), name
