"""What ratios must be reached, by row: a B-cos model should cost what its twin costs."""

from collections.abc import Mapping

from pathology.benchmark.contender import is_convnet

# On a GPU the pointwise work of a B-cos layer is what costs, and it is compilation that fuses it.
_COMPILED_ON_GPU = {"inference": 1.15, "training_step": 1.35}
_OVER_TWIN = {"inference": 1.05, "training_step": 1.12}
_ANYWHERE = {
    "kept_memory": 1.2,
    "explain_head": 1.05,
    "explain_16px": 1.35,
    # Independent of their number.
    "explain_classes_memory": 1.05,
}
# The convolutions of the way back alone make the first 2.13.
_TO_PIXELS = {True: 2.4, False: 2.1}


def target(row: Mapping[str, str]) -> float | None:
    """The ratio that a row must not exceed; ``None`` where there is no bar.

    Args:
        row: with ``model``, ``measure``, ``classes``, ``mode`` and ``device``.
    """
    measure = row["measure"]
    if measure == "explain_class":
        return _TO_PIXELS[is_convnet(row["model"])]
    if measure == "explain_classes":
        return 1 + 1.3 * int(row["classes"])
    if row["device"] == "cuda" and measure in _COMPILED_ON_GPU:
        return _COMPILED_ON_GPU[measure] if row["mode"] == "compiled" else None
    return (_OVER_TWIN | _ANYWHERE).get(measure)


def met(row: Mapping[str, str]) -> bool | None:
    """Whether a row reaches its target, as the ratio is written; ``None`` without one."""
    bar = target(row)
    return None if bar is None else float(row["ratio"]) <= bar
