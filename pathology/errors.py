"""The errors of ``pathology``.

::

    PathologyError
    +-- SlideError                carries .path
    |   +-- SlideOpenError        unreadable or unsupported file
    |   +-- MissingResolutionError no micrometres per pixel in the file and none given
    |   +-- NoTissueError         nothing left to look at
    +-- ManifestError             a table of slides or tiles that cannot be used; names the row
    |   +-- LeakageError          one patient in two splits
    +-- AnnotationError           regions drawn on a slide that cannot be used; names which
    +-- StampMismatchError        results made by another model or specification
    +-- OutputError               a folder or file that cannot be written
    +-- ClusterError              machines that cannot be had, or work otherwise than this one
    +-- MissingExtraError         an optional package that is not installed
    +-- TrainingError         a training of a study that failed
    +-- LedgerError               the sum of a map does not account for its score

The command line turns each into one line and exit code 2. A message says what failed, on what,
what was got and wanted, and what to do.
"""

from pathlib import Path


class PathologyError(Exception):
    """Root of everything ``pathology`` raises on purpose."""


class SlideError(PathologyError):
    """Something is wrong with one slide.

    Args:
        message: what failed and what to do; the path is put in front.
        path: the slide's file, ``None`` for a slide in memory.
    """

    def __init__(self, message: str, path: str | Path | None = None) -> None:
        super().__init__(f"{path}: {message}" if path is not None else message)
        self.path = Path(path) if path is not None else None


class SlideOpenError(SlideError):
    """The file cannot be read as a slide."""


class MissingResolutionError(SlideError):
    """The file does not say how large a pixel is, and nobody else did."""


class NoTissueError(SlideError):
    """No tile of the slide holds enough tissue."""


class ManifestError(PathologyError):
    """A manifest cannot be used as it is."""


class LeakageError(ManifestError):
    """A patient is in more than one split."""


class AnnotationError(PathologyError):
    """Regions drawn on a slide cannot be used as they are."""


class StampMismatchError(PathologyError):
    """Stored results were made by something else than what is asked for now."""


class OutputError(PathologyError):
    """Results cannot be written where they should go."""


class ClusterError(PathologyError):
    """Workers on other machines cannot be had, or cannot be used as they are."""


class MissingExtraError(PathologyError, ImportError):
    """What was asked for needs an optional package; the message says which to install."""


class TrainingError(PathologyError):
    """A training that a study started has failed."""


class LedgerError(PathologyError):
    """Contributions do not add up to the score within the stated tolerance."""
