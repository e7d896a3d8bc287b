"""Typed functions as verbs: how words become arguments."""

from pathlib import Path

import pytest

from pathology.cli.run_function import run_function

SEEN = {}


def verb(
    out: Path,
    targets: str | list[str] | None = None,
    sizes: list[int] | None = None,
    keep_going: bool = False,
) -> int:
    """A verb.

    Args:
        out: a folder.
        targets: one or more.
        sizes: whole numbers.
        keep_going: a switch.
    """
    SEEN.update(out=out, targets=targets, sizes=sizes, keep_going=keep_going)
    return 7


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--targets", "a", "b"], {"targets": ["a", "b"]}),
        (["--targets", "a - b", 'c "d", e'], {"targets": ["a - b", 'c "d", e']}),
        (["--targets", "[a, b]"], {"targets": ["a", "b"]}),
        (["--targets", "a"], {"targets": "a"}),
        (["--targets=a", "--keep-going"], {"targets": "a", "keep_going": True}),
        (["--targets", "ü", "b", "--keep-going"], {"targets": ["ü", "b"], "keep_going": True}),
        (["--keep-going", "--targets", "a", "b"], {"targets": ["a", "b"], "keep_going": True}),
        (["--keep-going", "false", "--sizes", "3", "4"], {"sizes": [3, 4], "keep_going": False}),
    ],
)
def test_words(words, wanted):
    assert run_function(verb, [*words, "--out", "x"]) == 7
    rest = {"out": Path("x"), "targets": None, "sizes": None, "keep_going": False}
    assert rest | wanted == SEEN


def test_a_list_may_come_last():
    assert run_function(verb, ["--out", "x", "--targets", "a", "b", "c"]) == 7
    assert SEEN["targets"] == ["a", "b", "c"]


def test_others_take_one_word(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_function(verb, ["--out", "x", "y"])
    assert stopped.value.code == 2
    assert "y" in capsys.readouterr().err
