"""The commands that docs/data.md and the README show have the options they show."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import pytest

from pathology.annotations import read_classes

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "data.md")


def shown(page):
    """The commands of a page's consoles, as lists of words."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ pathology "):
                yield shlex.split(line.removeprefix("$ pathology "), comments=True)


def options(words):
    """Names of the options that a command's function takes."""
    verb, *rest = words
    module = importlib.import_module(f"pathology.cli.{verb}")
    if verb == "data":
        function = module.VERBS[rest[0]][0]
    elif verb == "benchmark":
        function = getattr(module, "study" if rest[0].startswith("--") else rest[0])
    else:
        function = getattr(module, verb)
    return {f"--{name.replace('_', '-')}" for name in inspect.signature(function).parameters}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_take_the_options_that_are_shown(page):
    commands = [words for words in shown(page) if words[0] not in ("train", "doctor")]
    assert commands
    for words in commands:
        given = {word.split("=")[0] for word in words if word.startswith("--")} - {"--config"}
        assert given <= options(words), words


def test_the_classes_that_are_shown_can_be_read(tmp_path):
    text = (ROOT / "docs" / "data.md").read_text()
    [classes] = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "regions.json").write_text(classes)
    assert list(read_classes(tmp_path / "regions.json")) == ["tumour", "normal"]
