"""What is imported is asked for, extras are told, and the version stands in one place."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import bcos_vit
from pathology.cli import installation
from pathology.cli.installation import EXTRAS, NAMED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("bcos_vit", "pathology")


def normal(requirement):
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


BASE = {normal(each) for each in PROJECT["dependencies"]}
OF_EXTRAS = {
    normal(each) for extra in EXTRAS for each in PROJECT["optional-dependencies"][extra]
} - BASE


@cache
def distributions_of():
    """Distributions that bring a module, by its name."""
    found = metadata.packages_distributions()
    return {name: {normal(each) for each in brought} for name, brought in found.items()}


@cache
def imported():
    """Third-party modules in the packages, each with the files that import it, at any depth."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in (each.partition(".")[0] for each in names):
                if name not in (*sys.stdlib_module_names, *PACKAGES):
                    found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_every_module_that_is_imported_is_asked_for():
    missing = {
        name: sorted(files)
        for name, files in imported().items()
        if not distributions_of().get(name, set()) & (BASE | OF_EXTRAS)
    }
    assert not missing, "add these to pyproject.toml"


def test_what_an_extra_brings_is_imported_only_where_it_is_used():
    for name, files in imported().items():
        if distributions_of()[name] & OF_EXTRAS:
            assert all(
                file.startswith(("pathology/viewer/", "pathology/cohort/on_ray/"))
                or file == "pathology/benchmark/digit_bags.py"
                for file in files
            ), f"{name} is imported by {sorted(files)}"


@pytest.mark.parametrize("extra", EXTRAS)
def test_doctor_looks_for_what_the_extra_brings(extra):
    brought = {normal(each) for each in PROJECT["optional-dependencies"][extra]}
    for module in EXTRAS[extra][0]:
        assert distributions_of()[module] & brought


def test_versions_that_doctor_tells_are_of_requirements():
    assert set(NAMED) <= BASE


def test_every_requirement_is_pinned_to_a_version_that_it_allows():
    pins = installation.tested_versions()
    for requirement in PROJECT["dependencies"]:
        least = re.search(r">=([\d.]+)", requirement)[1]
        pin = pins[normal(requirement)]
        numbers = [[int(n) for n in re.findall(r"\d+", text)] for text in (pin, least)]
        assert numbers[0] >= numbers[1], requirement


def test_the_version_is_that_of_citation_and_changelog():
    assert PROJECT["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == bcos_vit.__version__
    assert citation["license"] == ["Apache-2.0", "BSD-3-Clause"]
    released = re.findall(r"^## (\d\S*) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == (bcos_vit.__version__, str(citation["date-released"]))


def test_the_page_on_installing_tells_every_extra():
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    table = re.findall(r"^\| `\[(\w+)\]` \| (.*?) \| (\d+) \| ([\d.,]+) \|$", page, re.M)
    assert {name: purpose for name, purpose, _, _ in table} == {
        name: purpose for name, (_, purpose) in EXTRAS.items()
    }
