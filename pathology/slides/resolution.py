"""How large a pixel is: the chain of sources from which micrometres per pixel are taken."""

import math
from collections.abc import Mapping
from pathlib import Path

from pathology.errors import MissingResolutionError
from pathology.geometry import Mpp

# Light microscopes sit between about 0.1 and 4 um per pixel. Outside of this range it is not a
# resolution but a default somebody's software left behind: 72 dpi reads as 352.8 um per pixel.
SMALLEST, LARGEST = 0.05, 10.0
# Who gives a value means it, also for a scan of 29 um per pixel. Beyond these it is a slip of the
# unit: 250 is 0.25 um in nanometres, and at 100 um a whole glass slide is 750 pixels long.
SMALLEST_GIVEN, LARGEST_GIVEN = 0.01, 100.0
MICROMETRES = {"centimeter": 1e4, "inch": 2.54e4}


def given_mpp(mpp: float | tuple[float, float]) -> Mpp:
    """Both axes from one number, or from ``(x, y)``, that the caller vouches for.

    Raises:
        ValueError: not one number or two; one that is not finite, or outside of 0.01 to 100.
    """
    both = tuple(mpp) if isinstance(mpp, tuple | list) else (mpp, mpp)
    if len(both) != 2:
        raise ValueError(f"mpp must be one number or two, (x, y), got {mpp}")
    x, y = both
    for value in (x, y):
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"mpp must be finite micrometres per pixel above 0, got {mpp}")
        if not SMALLEST_GIVEN <= value <= LARGEST_GIVEN:
            wanted = f"{SMALLEST_GIVEN:g} to {LARGEST_GIVEN:g}"
            raise ValueError(f"mpp must be {wanted} micrometres per pixel of level 0, got {mpp}")
    return Mpp(float(x), float(y))


def find_mpp(
    properties: Mapping[str, str], mpp: float | tuple[float, float] | None, path: Path | None
) -> tuple[Mpp, str]:
    """Micrometres per level-0 pixel and where they come from.

    Taken from, in this order: ``mpp`` (``"given"``), ``openslide.mpp-x`` and ``-y``
    (``"openslide"``), ``aperio.MPP`` (``"aperio"``), the OME header (``"ome"``), the TIFF
    resolution tags in pixels per centimetre or inch (``"tiff resolution"``). Values from metadata
    outside of 0.05 to 10 um per pixel are passed over; what is given is believed from 0.01 to 100.

    Args:
        properties: the slide's metadata under OpenSlide's names.
        mpp: what the caller says, one number or ``(x, y)``; ``None`` to ask the file.
        path: the slide's file, for the message.

    Raises:
        MissingResolutionError: nothing plausible anywhere.
        ValueError: ``mpp`` is no size of a pixel, see :func:`given_mpp`.
    """
    if mpp is not None:
        return given_mpp(mpp), "given"
    implausible = []
    for source, found in _candidates(properties):
        if all(SMALLEST <= value <= LARGEST for value in found):
            return found, source
        implausible.append(f"{source} says {found.x:g} x {found.y:g}")
    reason = "no micrometres per pixel in its metadata"
    if implausible:
        reason = (
            f"no plausible micrometres per pixel in its metadata ({'; '.join(implausible)}; "
            f"wanted {SMALLEST:g} to {LARGEST:g})"
        )
    raise MissingResolutionError(f"{reason}; pass mpp= (for example 0.25) or --mpp 0.25", path)


def _candidates(properties: Mapping[str, str]) -> list[tuple[str, Mpp]]:
    candidates = [
        ("openslide", _pair(properties, "openslide.mpp-x", "openslide.mpp-y")),
        ("aperio", _pair(properties, "aperio.MPP", "aperio.MPP")),
        ("ome", _pair(properties, "ome.mpp-x", "ome.mpp-y")),
    ]
    per_unit = _pair(properties, "tiff.XResolution", "tiff.YResolution")
    unit = MICROMETRES.get(properties.get("tiff.ResolutionUnit", "").lower())
    if per_unit is not None and unit is not None and min(per_unit) > 0:
        candidates.append(("tiff resolution", Mpp(unit / per_unit.x, unit / per_unit.y)))
    return [(source, found) for source, found in candidates if found is not None]


def _pair(properties: Mapping[str, str], x: str, y: str) -> Mpp | None:
    """Two numbers of the metadata; some scanners write a decimal comma, some write nothing."""
    try:
        pair = Mpp(*(float(properties[key].replace(",", ".")) for key in (x, y)))
    except (KeyError, ValueError):
        return None
    return pair if all(map(math.isfinite, pair)) else None
