"""The dispatcher: help at once, clear refusals."""

import subprocess
import sys

import pytest

from pathology.cli import VERBS, data, main


def test_help_names_every_verb(pathology):
    code, out, _ = pathology("--help")
    assert code == 0
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", [*VERBS, *(f"data {verb}" for verb in data.VERBS)])
def test_help_of_a_verb_loads_no_torch(verb):
    script = (
        "import sys; from pathology.cli import main\n"
        "try: main([*sys.argv[1:], '--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *verb.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    without = (
        "doctor", "evaluate", "calibrate", "benchmark", "data", "data list", "data check", "view",
    )  # fmt: skip
    assert "--out" in done.stdout or verb in without


def test_an_unknown_verb_suggests(refused):
    assert "did you mean 'explain'" in refused("explian")


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["tile", "--slides", "x", "--out", "y", "--tile-size", "3"])
    assert stopped.value.code == 2
    assert "tile_size" in capsys.readouterr().err
