"""What a map's values are called on a screen, and what they are divided by to be that.

Logits are stored per pixel, so that they add up; shown they are a density, whose height does not
depend on how large a pixel is.
"""

DENSITY = "logits/mm²"
SHOWN = {"logit": DENSITY, "logit/mm2": DENSITY}


def shown_unit(unit: str) -> str:
    """The unit on a screen of a map whose stored unit is ``unit``."""
    return SHOWN.get(unit, unit)


def is_per_pixel(unit: str) -> bool:
    """Whether values of a unit are shown per area: divided by that of a pixel, in mm2."""
    return unit == "logit"
