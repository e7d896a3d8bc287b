"""The comparison with the reference package says at once what keeps it from running."""

import sys

import pytest

from scripts import compare_speed_with_bcos_v2 as script


@pytest.fixture
def refused(monkeypatch, capsys):
    def refused(*arguments):
        monkeypatch.setattr("sys.argv", ["script", *map(str, arguments)])
        with pytest.raises(SystemExit, match="2"):
            script.main()
        return capsys.readouterr().err.splitlines()[-1]

    return refused


def test_without_the_reference_it_says_how_to_get_it(refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "bcos", None)
    line = refused("--out", tmp_path / "x.csv")
    assert "the reference is not installed" in line
    assert "pip install --no-deps bcos einops" in line


def test_options_are_checked_first(refused, tmp_path):
    assert "no B-cos entry point is called 'resnet8'; did you mean" in refused(
        "--entries", "resnet8"
    )
    assert "batch must be at least 1, got 0" in refused("--batch", "0")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("--out", tmp_path / "file" / "x.csv")
