"""Errors in one line, on their way between processes, and deaths in words."""

import pickle
import signal

import pytest

from bcos_vit.errors import BcosError
from pathology.cohort.failures import ended_by, given_up, message, portable
from pathology.errors import PathologyError, SlideOpenError
from tests.pathology.cohort.trouble import OddError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SlideOpenError("is\n no slide", "a.tif"), "a.tif: is no slide"),
        (BcosError("no"), "no"),
        (ValueError("two\nlines"), "two lines"),
        (KeyError("k"), "KeyError: 'k'"),
        (RuntimeError(""), "RuntimeError: "),
    ],
)
def test_one_line_says_the_kind_of_what_nobody_expected(error, text):
    assert message(error) == text


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


def test_errors_are_the_same_after_they_were_sent():
    error = pickle.loads(pickle.dumps(portable(raised(SlideOpenError("is no slide", "a.tif")))))
    assert (type(error), str(error)) == (SlideOpenError, "a.tif: is no slide")
    assert not hasattr(error, "__notes__")


def test_the_unexpected_brings_its_traceback():
    error = pickle.loads(pickle.dumps(portable(raised(ZeroDivisionError("by zero")))))
    assert isinstance(error, ZeroDivisionError)
    assert "in raised" in error.__notes__[0]


class LocalError(Exception):
    """Holds what cannot be sent."""

    def __init__(self) -> None:
        super().__init__("with a function")
        self.function = lambda: None


@pytest.mark.parametrize("error", [OddError("one", 2), LocalError()])
def test_errors_that_cannot_be_sent_leave_their_words(error):
    sent = pickle.loads(pickle.dumps(portable(error)))
    assert (type(sent), str(sent)) == (PathologyError, message(error))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-signal.SIGKILL, "was killed, most often for want of memory"),
        (-signal.SIGSEGV, "ended by SIGSEGV; the file may be damaged"),
        (-signal.SIGTERM, "was told to end (SIGTERM)"),
        (128 + signal.SIGTERM, "was told to end (SIGTERM)"),
        (-40, "ended by signal 40"),
        (7, "ended with exit code 7"),
        (0, "ended with exit code 0"),
    ],
)
def test_deaths_are_told_by_their_exit_codes(code, said):
    assert f"the process that worked on it {said}" in ended_by(code)


def test_a_slide_that_is_given_up_says_after_how_many_tries():
    assert str(given_up("it died", 1, "a.tif")) == "a.tif: it died"
    assert str(given_up("it died", 3, "a.tif")) == "a.tif: tried 3 times; the last time it died"
