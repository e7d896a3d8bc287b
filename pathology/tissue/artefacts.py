"""The artefacts by name."""

from pathology.tissue.artefact import Artefact
from pathology.tissue.black import BlackFill
from pathology.tissue.blur import Blur
from pathology.tissue.edge import CoverslipEdges
from pathology.tissue.fold import Folds
from pathology.tissue.pen import PenMarks

ARTEFACTS = ("pen", "fold", "blur", "edge", "black")
"""Names of artefacts."""


def artefact_named(name: str) -> Artefact:
    """What finds the artefact of that name, with its defaults.

    Raises:
        ValueError: there is none.
    """
    masks: dict[str, type[Artefact]] = {
        "pen": PenMarks,
        "fold": Folds,
        "blur": Blur,
        "edge": CoverslipEdges,
        "black": BlackFill,
    }
    if name not in masks:
        raise ValueError(f"no artefact is called {name!r}; there are {', '.join(ARTEFACTS)}")
    return masks[name]()
