"""StainProfile: what the colours of one slide, or of a target, are; and its file."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from pathology.errors import ManifestError
from pathology.outputs import complete_file
from pathology.slides.colour import ColourSpace
from pathology.stain.density import PALEST, PALEST_MOVED, Vector
from pathology.stain.vectors import REFERENCE

Method = Literal["macenko", "vahadane", "reinhard"]

FORMAT = 1

FEWEST_PIXELS = 1000
"""Fewer stained pixels than this say little about a slide: percentiles would rest on ten."""


@dataclass(frozen=True, slots=True)
class StainSettings:
    """How profiles are fitted.

    Args:
        method: ``"macenko"`` and ``"vahadane"`` take the optical density apart into two stains;
            ``"reinhard"`` takes means and deviations of colours in CIELAB.
        white: light, of 255, that counts as glass in all colours, or ``"glass"``: the commonest of
            the slide's bright and little coloured pixels.
        palest: optical density, base 10, that a stained pixel exceeds on average over colours; 0.1
            when omitted, 0.03 for Reinhard, who needs pale tissue too.
        percentile: Macenko's: share of pixels, in percent, beyond either stain vector.
        sparsity: Vahadane's: how strongly pixels are taken to hold one stain only.
        tiles: tiles of a slide that are looked at, drawn at random.
        pixels: stained pixels that are looked at, as many from each tile.
        seed: which tiles and pixels.

    Raises:
        ValueError: an argument outside of its range.
    """

    method: Method = "macenko"
    white: float | Literal["glass"] = 240.0
    palest: float | None = None
    percentile: float = 1.0
    sparsity: float = 0.01
    tiles: int = 100
    pixels: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(
                f"method must be one of {', '.join(get_args(Method))}; got {self.method!r}"
            )
        if self.white != "glass" and not (
            isinstance(self.white, (int, float)) and 1 < self.white <= 255
        ):
            raise ValueError(f'white must be in (1, 255] or "glass", got {self.white!r}')
        if self.white != "glass":
            object.__setattr__(self, "white", float(self.white))  # 240 and 240.0 are one setting
        if self.palest is None:
            pale = PALEST_MOVED if self.method == "reinhard" else PALEST
            object.__setattr__(self, "palest", pale)
        elif not 0 <= self.palest < 1:
            raise ValueError(f"palest must be an optical density in [0, 1), got {self.palest}")
        if not 0 <= self.percentile < 50:
            raise ValueError(f"percentile must be in [0, 50), got {self.percentile}")
        if not (math.isfinite(self.sparsity) and self.sparsity >= 0):
            raise ValueError(f"sparsity must be finite and at least 0, got {self.sparsity}")
        if self.tiles < 1 or self.pixels < FEWEST_PIXELS or self.seed < 0:
            raise ValueError(
                f"tiles must be positive, pixels at least {FEWEST_PIXELS} and seed at least 0, got"
                f" {self.tiles}, {self.pixels} and {self.seed}"
            )


@dataclass(frozen=True, slots=True)
class StainSource:
    """What a profile was fitted on.

    Args:
        name: the slide, or the image file.
        stamp: fingerprint of its content.
        tiles: fingerprint of the tiles that were drawn from; empty for an image.
        pixels: how many stained pixels decided.
        colour: what they showed: colours as stored, or by the slide's ICC profile in sRGB.
    """

    name: str
    stamp: str
    tiles: str = ""
    pixels: int = 0
    colour: ColourSpace = "stored"


@dataclass(frozen=True, slots=True)
class StainProfile:
    """The colours of one slide.

    Args:
        method: how it was made.
        white: red, green and blue of glass, of 255.
        stains: haematoxylin and eosin as rows of length 1, ``(2, 3)``; of Macenko and Vahadane.
        amounts: the 99th percentile of either's amount, in optical density, base 10; likewise.
        means: of L*, a* and b* over stained pixels; of Reinhard.
        deviations: their standard deviations; likewise.
        source: what it was fitted on; None for published numbers.
        settings: how; None for published numbers.

    Raises:
        ValueError: an unknown method, or numbers that it needs are missing, not finite, or cannot
            be divided by.
    """

    method: Method
    white: Vector
    stains: tuple[Vector, Vector] | None = None
    amounts: tuple[float, float] | None = None
    means: Vector | None = None
    deviations: Vector | None = None
    source: StainSource | None = None
    settings: StainSettings | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}")
        needed = ("means", "deviations") if self.method == "reinhard" else ("stains", "amounts")
        for name in ("white", *needed):
            value = getattr(self, name)
            shape = {"stains": (2, 3), "amounts": (2,)}.get(name, (3,))
            numbers = np.asarray(value if value is not None else (), dtype=np.float64)
            if numbers.shape != shape or not np.isfinite(numbers).all():
                raise ValueError(f"{name} must be finite numbers of shape {shape}, got {value}")
            if name in ("white", "amounts", "deviations") and not (numbers > 0).all():
                raise ValueError(f"{name} must be positive, got {value}")

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Stain vectors as rows, each as long as its 99th percentile: ``(2, 3)``.

        Raises:
            ValueError: a profile of Reinhard's method, which has none.
        """
        if self.stains is None or self.amounts is None:
            raise ValueError(f"a profile of method {self.method!r} has no stain vectors")
        return np.array(self.stains) * np.array(self.amounts)[:, None]

    @property
    def name(self) -> str:
        """What it was fitted on, in a word."""
        return self.source.name if self.source else "published reference"

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The profile of :meth:`to_dict`.

        Raises:
            ValueError: another format, or values that make no profile.
        """
        rest = dict(values)
        if rest.pop("format", None) != FORMAT:
            raise ValueError(f"format {values.get('format')}, wanted {FORMAT}")
        if unknown := set(rest) - {field.name for field in fields(cls)}:
            raise ValueError(f"no profile has {', '.join(sorted(unknown))}")
        try:
            source, settings = rest.pop("source"), rest.pop("settings")
            return cls(
                **{name: _tuples(value) for name, value in rest.items()},
                source=StainSource(**source) if source else None,
                settings=StainSettings(**settings) if settings else None,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a profile: {error}") from error

    def digest(self) -> str:
        """Fingerprint of all values, 16 hex digits."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON, complete or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        with complete_file(Path(path)) as draft:
            draft.write_text(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ManifestError: missing, damaged, or no profile.
        """
        try:
            values = json.loads(Path(path).read_text())
            if not isinstance(values, dict):
                raise ValueError("not a profile")
            return cls.from_dict(values)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ManifestError(
                f"{path}: the stain profile cannot be read ({reason}); remove it and run"
                " `pathology stain` again"
            ) from error


def reference_profile(method: Method, white: float = 240.0) -> StainProfile:
    """The target that implementations of Macenko's method share, at 99th percentiles as published.

    Raises:
        ValueError: Reinhard's method, which has no such reference.

    Source:
        Reference vectors and maxima of the MATLAB code by M. Veta, natural logarithm there.
    """
    if method == "reinhard":
        raise ValueError("Reinhard's method has no published reference; name a slide or an image")
    haematoxylin, eosin = (_vector(row / np.linalg.norm(row)) for row in REFERENCE)
    largest = (1.9705 / math.log(10), 1.0308 / math.log(10))
    return StainProfile(method, (white, white, white), (haematoxylin, eosin), largest)


def _vector(numbers: NDArray[np.float64]) -> Vector:
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
