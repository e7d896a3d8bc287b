"""The page on GPUs: commands have the options it shows, memory is as measured."""

import csv
import importlib
import inspect
import re
import shlex

import pytest
import torch

from pathology.cli import main
from tests.docs.pages import DOCS, fences
from tests.made_run import write_run

TEXT = (DOCS / "how-to" / "gpu.md").read_text()


def shown():
    """Its commands as lists of words."""
    for language, content in fences(TEXT):
        for line in content.splitlines():
            line = line.removeprefix("$ ")
            if language in ("console", "bash") and line.startswith("pathology "):
                yield shlex.split(line, comments=True)[1:]


def parameters(verb, function=None):
    module = importlib.import_module(f"pathology.cli.{verb}")
    found = inspect.signature(getattr(module, function or verb)).parameters
    return {f"--{name.replace('_', '-')}": found[name] for name in found}


def test_commands_have_the_options_that_are_shown():
    commands = list(shown())
    assert len(commands) > 3
    for verb, *rest in commands:
        function = rest[0] if verb == "benchmark" else None
        assert {word for word in rest if word.startswith("--")} <= set(parameters(verb, function))


def test_the_verbs_that_take_a_device_are_those_listed():
    row = next(line for line in TEXT.splitlines() if "`--device auto`" in line)
    for verb in re.findall(r"`(\w+)`", row.split("|")[1]):
        function = "study" if verb == "benchmark" else None
        assert parameters(verb, function)["--device"].default == "auto"
    row = next(line for line in TEXT.splitlines() if "processors only" in line)
    for verb in re.findall(r"`(\w+)`", row.split("|")[1]):
        module = importlib.import_module(f"pathology.cli.{verb}")
        assert "device" not in inspect.signature(getattr(module, verb, module.main)).parameters


def test_precision_and_readers_are_as_told():
    features = parameters("features")
    assert features["--precision"].default == "fp32"
    assert features["--readers"].default == 4
    assert parameters("explain")["--batch-size"].default == 16


def test_memory_is_what_was_measured():
    with (DOCS / "speed.csv").open() as file:
        rows = [row for row in csv.DictReader(file)
                if (row["mode"], row["layout"]) == ("eager", "contiguous")]  # fmt: skip
    cells = {(row["model"], row["measure"]): row for row in rows}
    listed = re.findall(
        r"^\| `(bcos_\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", TEXT, re.MULTILINE
    )
    assert len(listed) == 3
    for model, *shown in listed:
        one, several = (cells[model, f"explain_{what}_memory"] for what in ("class", "classes"))
        measured = [one["theirs_per_image"], one["ours_per_image"], several["ours_per_image"]]
        assert list(map(float, shown)) == pytest.approx(list(map(float, measured)), abs=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_one_line(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    assert main(["evaluate", "--run", str(run), "--device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pathology evaluate: device 'cuda' cannot be used: ")
    assert said.count("\n") == 1
