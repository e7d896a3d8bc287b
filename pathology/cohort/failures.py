"""What went wrong with a slide: in one line, and in a form that can be sent."""

import pickle
import signal
import traceback

from bcos_vit.errors import BcosError
from pathology.errors import PathologyError, SlideError


def message(error: Exception) -> str:
    """One line for people; with the error's kind where nobody expected it."""
    text = " ".join(str(error).split())
    return text if _is_expected(error) else f"{type(error).__name__}: {text}"


def portable(error: Exception) -> Exception:
    """The error in a form that survives being sent, with its traceback if nobody expected it."""
    if not _is_expected(error):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # whatever an exception's own constructor may say
        pass
    return PathologyError(message(error))


def ended_by(code: int) -> str:
    """Why a process died at a slide, by its exit code: minus the signal that it was killed by."""
    if code == -signal.SIGKILL:
        return (
            "the process that worked on it was killed, most often for want of memory; use fewer"
            " workers, or look at the slide"
        )
    if code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return "the process that worked on it was told to end (SIGTERM) by somebody else"
    how = f"by {_signal_name(-code)}" if code < 0 else f"with exit code {code}"
    return f"the process that worked on it ended {how}; the file may be damaged"


def given_up(why: str, tries: int, path: str) -> SlideError:
    """The outcome of a slide at which worker after worker died.

    Args:
        why: the last one died, in words.
        tries: how many died.
        path: the slide's file.
    """
    return SlideError(why if tries == 1 else f"tried {tries} times; the last time {why}", path)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real-time programs have none
        return f"signal {number}"


def _is_expected(error: Exception) -> bool:
    return isinstance(error, PathologyError | BcosError | ValueError)
