"""Whether an explanation is of the slide that it would be shown on.

A slide that was scanned again, or opened with pixels of another size, has the same name; evidence
of the former one would lie beside what it is of, and nobody would see it.
"""

import math
from collections.abc import Mapping
from typing import Any

from pathology.errors import PathologyError
from pathology.slides import Slide


def difference(record: Mapping[str, Any], slide: Slide, stamp: str) -> str | None:
    """What an explanation's slide differs in; None where it is the same, or was not noted.

    Args:
        record: of the explanation.
        slide: that it would be shown on.
        stamp: the slide's.

    Raises:
        PathologyError: the record is damaged.
    """
    try:
        return _difference(record.get("settings", {}), slide, stamp)
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise PathologyError(
            f"slide {slide.slide_id}: the settings of its explanation are damaged; explain it again"
        ) from error


def _difference(settings: Mapping[str, Any], slide: Slide, stamp: str) -> str | None:
    if settings.get("slide", stamp) != stamp:
        return (
            f"explained was another file of the name {slide.slide_id} (its fingerprint is"
            f" {settings['slide'][:12]}, that of this one {stamp[:12]}); explain the slide again,"
            " or show the one that was explained"
        )
    explained = settings.get("slide_mpp", slide.mpp)
    if not all(_is_close(*pair) for pair in zip(explained, slide.mpp, strict=True)):
        return (
            f"explained with pixels of {explained[0]:g} x {explained[1]:g} µm, and shown with"
            f" {slide.mpp.x:g} x {slide.mpp.y:g} µm; give the same --mpp, or column mpp of the"
            " manifest"
        )
    return None


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)
