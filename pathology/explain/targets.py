"""What is explained: the logit of a class, or a difference of logits.

A map is linear in the logit that it takes apart, so any linear combination of logits has one. The
difference of two classes asks why one rather than the other; a class against the mean of all
leaves out what speaks for every class alike.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

MINUS = " - "
MEAN = "mean"
"""What stands for the mean of all logits, where no class is called so."""


@dataclass(frozen=True, slots=True)
class Target:
    """A linear combination of logits.

    Args:
        name: as it was asked for, such as ``"tumour"``, ``"tumour - normal"``, ``"tumour - mean"``.
        coefficients: of each logit.
    """

    name: str
    coefficients: tuple[float, ...]

    @property
    def place(self) -> int | None:
        """The class, of a target that is one; None for a difference."""
        counted = [i for i, share in enumerate(self.coefficients) if share]
        return counted[0] if len(counted) == 1 and self.coefficients[counted[0]] == 1 else None

    @property
    def folder(self) -> str:
        """A name for a folder; that of another target may be the same."""
        name = "_".join(self.name.replace(MINUS, " minus ").split())
        name = name.replace("/", "_").replace("\\", "_")
        # Neither the folder above, nor hidden.
        return name if name and not name.startswith(".") else f"_{name}"


def one_class(classes: Sequence[str], place: int) -> Target:
    """The logit of one class."""
    return Target(classes[place], tuple(float(i == place) for i in range(len(classes))))


def parse_target(text: str, classes: Sequence[str]) -> Target:
    """``"tumour"``, ``"tumour - normal"``, or ``"tumour - mean"``, the mean of all logits.

    Args:
        text: the name of a class, or two with a minus between spaces.
        classes: in the order of the logits.

    Raises:
        ValueError: no such class, or a single one against its own mean, which is 0.
    """
    if text in classes:
        return one_class(classes, classes.index(text))
    words = text.split(MINUS)
    for i in range(1, len(words)):  # names of classes may hold a minus
        left, right = MINUS.join(words[:i]), MINUS.join(words[i:])
        if left not in classes or not (right in classes or right == MEAN) or left == right:
            continue
        shares = [float(name == left) for name in classes]
        for place, name in enumerate(classes):
            shares[place] -= float(name == right) if right in classes else 1 / len(classes)
        if not any(shares):
            raise ValueError(f"target {text!r} is nothing: {left} is the only class there is")
        return Target(text, tuple(shares))
    near = difflib.get_close_matches(words[0], classes, n=1)
    raise ValueError(
        f"target must be one of {', '.join(classes)}, or a difference as 'a - b' or 'a - {MEAN}';"
        f" got {text!r}" + (f"; did you mean {near[0]!r}?" if near and near[0] != text else "")
    )
