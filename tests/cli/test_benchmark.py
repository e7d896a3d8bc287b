"""``pathology benchmark speed``: rows appear as they are measured, and never mix settings."""

import csv
import subprocess
import sys

import pytest

from pathology.benchmark import speed
from pathology.benchmark.table import FIELDS

VIT, VITC = "bcos_vit_tiny_patch16_224", "bcos_vitc_tiny_patch16_224"
SMALL = (
    "benchmark", "speed", "--size-px", "32", "--batch", "1", "--seconds", "0", "--device", "cpu",
    "--modes", "eager",
)  # fmt: skip


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_measured_once(pathology, tmp_path, monkeypatch):
    out = tmp_path / "made" / "speed.csv"
    same = (*SMALL, "--out", out, "--models", VIT)
    code, text, err = pathology(*same, "--measures", "inference")
    assert code == 0, err
    assert "must reach" in text.splitlines()[0]
    assert text.splitlines()[1].startswith(f"{VIT} ")
    assert " 1.05: " in text.splitlines()[1]
    assert text.splitlines()[-1].endswith(f"of 1 targets met ({out})")
    [first] = table(out)
    assert tuple(first) == FIELDS

    # Another measure is added, the first row stays as it was.
    code, text, err = pathology(*same, "--measures", "[inference, kept_memory]")
    assert code == 0, err
    assert f"1 of 2 rows are in {out} already" in text
    assert [row["measure"] for row in table(out)] == ["inference", "kept_memory"]
    assert table(out)[0] == first

    # Nothing is left to do, unless it is asked for.
    monkeypatch.setattr(speed, "contenders", None)
    code, text, _ = pathology(*same, "--measures", "inference,kept_memory")
    assert (code, "must reach" in text) == (0, False)
    with pytest.raises(TypeError):
        pathology(*same, "--measures", "inference", "--again")
    assert len(table(out)) == 2


@pytest.fixture
def stored(tmp_path, pathology):
    """A table with a row."""
    out = tmp_path / "speed.csv"
    code, _, err = pathology(*SMALL, "--out", out, "--models", VIT, "--measures", "kept_memory")
    assert code == 0, err
    return out


def test_other_settings_are_refused_by_name(refused, stored):
    before = stored.read_bytes()
    line = refused(*SMALL, "--out", stored, "--models", VITC, "--batch", "3")
    assert f"{VIT} has batch 1, this run 3; choose another --out" in line
    assert "size_px 32, this run 224" in refused(*SMALL[:2], "--batch", "1", "--out", stored)
    stored.write_text(stored.read_text().replace(",cpu,", ",cpu,Old "))
    assert "has machine Old " in refused(*SMALL, "--out", stored, "--models", VIT)
    stored.write_bytes(before.replace(b",1,cpu,", b",7,cpu,"))
    assert "has threads 7, this run 1" in refused(*SMALL, "--out", stored, "--models", VIT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--models", "bcos_resnet19"), "'bcos_resnet19' has no twin here; did you mean"),
        (("--measures", "infrence"), "there is no 'infrence'; did you mean inference"),
        (("--models", VIT, "--layouts", "channels_last"), "nothing to measure"),
        (("--batch", "0"), "batch must be at least 1, got 0"),
        (("--device", "tpu"), "device 'tpu' cannot be used"),
    ],
)
def test_what_cannot_be_measured_is_one_line(refused, tmp_path, options, message):
    assert message in refused(*SMALL, "--out", tmp_path / "s.csv", *options)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_found_first(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(*SMALL, "--out", tmp_path / "file" / "speed.csv")
    assert "is a folder" in refused(*SMALL, "--out", tmp_path)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert "has other columns" in refused(*SMALL, "--out", tmp_path / "other.csv")
    assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"


def test_kinds_are_named(pathology, refused):
    code, out, _ = pathology("benchmark", "--help")
    assert (code, "speed" in out) == (0, True)
    code, out, err = pathology("benchmark")
    assert (code, out, "speed" in err) == (2, "", True)
    assert "no benchmark is called 'sped'; one of speed" in refused("benchmark", "sped")


def test_help_loads_no_torch():
    script = (
        "import sys; from pathology.cli import main\n"
        "try: main(['benchmark', 'speed', '--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: pathology benchmark speed ")
