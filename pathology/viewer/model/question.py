"""What a model can be asked, in words that go to another process."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pathology.runs.encoder_choice import EncoderChoice

Fill = Literal["background", "grey", "mean"]
MOST_POINTS = 50_000
"""Corners of a region in all: more are no outline of a person's."""


@dataclass(frozen=True)
class Means:
    """What a question is answered with.

    Args:
        runs: folders or checkpoints by the hash of their weights.
        device: where models compute.
        encoder: what made the features of runs that need one.
        stains: folder of stain profiles of runs trained on normalised tiles; a run's own when None.
    """

    runs: Mapping[str, str]
    device: str = "auto"
    encoder: EncoderChoice | None = None
    stains: Path | None = None


def record_hash(record: Mapping[str, Any]) -> str:
    """Tells an explanation's record from that of one that took its place."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Explained:
    """The explanation that is asked about.

    Args:
        folder: where it is.
        slide: file of its slide.
        record: hash of its record as it is shown (:func:`record_hash`); any when None.
    """

    folder: Path
    slide: Path
    record: str | None = None


@dataclass(frozen=True)
class TileQuestion:
    """What is in this tile?

    Args:
        index: row in the explanation's table of tiles.
        targets: what to explain besides the explanation's target; None for the classes, where
            there are at most 8.
        depth: where to stop; None for pixels where the model can, else the explanation's depth.

    Raises:
        ValueError: a number or name that there cannot be.
    """

    index: int
    targets: tuple[str, ...] | None = None
    depth: str | None = None

    @classmethod
    def of(cls, body: Any) -> "TileQuestion":
        """The question of a request.

        Raises:
            ValueError: naming what is wrong.
        """
        body = _object(body, {"index", "targets", "depth"})
        index, targets, depth = body.get("index"), body.get("targets"), body.get("depth")
        if type(index) is not int or index < 0:
            raise ValueError(f"index must be the number of a tile, got {index!r}")
        if targets is not None and not (
            isinstance(targets, list) and all(isinstance(name, str) for name in targets)
        ):
            raise ValueError(f"targets must be a list of names, got {targets!r}")
        if not isinstance(depth, str | None):
            raise ValueError(f"depth must be the name of a depth, got {depth!r}")
        return cls(index, None if targets is None else tuple(targets), depth)


@dataclass(frozen=True)
class MaskQuestion:
    """What would the score be with a region painted over?

    Args:
        polygons: each a ring and its holes, in level-0 pixels.
        fill: ``"background"``, the slide's colour of what was not scanned (white where the file
            does not say); ``"grey"``, the middle of all values; ``"mean"``, the mean colour of the
            slide's tiles.
    """

    polygons: tuple[tuple[tuple[tuple[float, float], ...], ...], ...]
    fill: Fill = "background"

    @classmethod
    def of(cls, body: Any) -> "MaskQuestion":
        """The question of a request.

        Raises:
            ValueError: naming what is wrong.
        """
        body = _object(body, {"polygons", "fill"})
        fill: Any = body.get("fill") or "background"
        if fill not in get_args(Fill):
            raise ValueError(f"fill must be one of {', '.join(get_args(Fill))}; got {fill!r}")
        given = body.get("polygons")
        if not isinstance(given, list) or not given:
            raise ValueError("polygons must be a list of polygons, each a ring and its holes")
        polygons = tuple(_polygon(polygon) for polygon in given)
        points = sum(len(ring) for polygon in polygons for ring in polygon)
        if points > MOST_POINTS:
            raise ValueError(f"polygons may have {MOST_POINTS:,} corners in all, got {points:,}")
        return cls(polygons, fill)


@dataclass(frozen=True)
class Job:
    """A question on its way to the worker.

    Args:
        number: of the job.
        explained: the explanation.
        question: what is asked.
        means: what it is answered with.
    """

    number: int
    explained: Explained
    question: TileQuestion | MaskQuestion
    means: Means


@dataclass(frozen=True)
class Answer:
    """What the worker found.

    Args:
        result: as JSON has it.
        parts: pictures and arrays by name.
    """

    result: Mapping[str, Any]
    parts: Mapping[str, bytes]

    @property
    def nbytes(self) -> int:
        """Of its parts."""
        return sum(map(len, self.parts.values()))


@dataclass(frozen=True)
class Report:
    """What the worker says of a job.

    Args:
        number: of the job.
        done, total: batches.
        what: is being done.
        answer: when it is found.
        error: one line, when it cannot be.
        cancelled: it was given up, as asked.
    """

    number: int
    done: int = 0
    total: int = 0
    what: str = ""
    answer: Answer | None = None
    error: str | None = None
    cancelled: bool = False

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.answer is not None or self.error is not None or self.cancelled


def _object(body: Any, known: set[str]) -> dict[str, Any]:
    if not isinstance(body, dict) or (set(body) - known):
        raise ValueError(f"a question is an object with {', '.join(sorted(known))}")
    return body


def _polygon(rings: Any) -> tuple[tuple[tuple[float, float], ...], ...]:
    if not isinstance(rings, list) or not rings:
        raise ValueError("a polygon is a list of rings: its outline, and its holes")
    return tuple(_ring(ring) for ring in rings)


def _ring(points: Any) -> tuple[tuple[float, float], ...]:
    if not isinstance(points, list) or len(points) < 3:
        raise ValueError("a ring is a list of at least 3 points")
    return tuple(_point(point) for point in points)


def _point(pair: Any) -> tuple[float, float]:
    # JSON as Python reads it knows NaN and infinity.
    if (
        not isinstance(pair, list)
        or len(pair) != 2
        or not all(type(number) in (int, float) and abs(number) < 1e9 for number in pair)
    ):
        raise ValueError(f"a point is [x, y] in level-0 pixels, got {str(pair)[:60]}")
    return float(pair[0]), float(pair[1])
