"""Slides and explanations of a viewer's list, each under an opaque id."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathology.explain.results.stored import StoredExplanation


@dataclass(eq=False)
class SlideEntry:
    """A slide of the list.

    Args:
        id: what requests name it by.
        name: its ``slide_id``.
        path: its file.
        labels: further columns of the manifest.
        mpp: what it is opened with; None to ask the file.
        problem: why it cannot be shown, as far as that is known.
        root: folder that its file must lie in; anywhere when None.
    """

    id: str
    name: str
    path: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    mpp: float | None = None
    problem: str | None = None
    root: Path | None = None


@dataclass(frozen=True)
class RunResults:
    """What one run said: a folder ``SLIDE/TARGET``.

    Args:
        id: what requests name it by.
        name: the folder's name, and its parents' where two have the same.
        folder: where it is.
    """

    id: str
    name: str
    folder: Path


@dataclass(frozen=True, eq=False)
class EvidenceEntry:
    """An explanation of the list, read when it is first looked at."""

    id: str
    run: RunResults
    slide: SlideEntry
    folder: Path

    @cached_property
    def explanation(self) -> "StoredExplanation":
        """What is in the folder.

        Raises:
            PathologyError: it is damaged.
        """
        from pathology.explain.results.stored import load_explanation

        return load_explanation(self.folder)

    @property
    def target(self) -> str:
        """What is explained."""
        return self.explanation.target
