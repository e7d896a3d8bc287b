"""Asking a run about what it explained, as the viewer's worker does."""

from pathology.viewer.model.question import Explained, MaskQuestion, Means, TileQuestion
from pathology.viewer.model.weights import digest_of
from pathology.viewer.model.worker.ask_mask import ask_mask
from pathology.viewer.model.worker.ask_tile import ask_tile
from pathology.viewer.model.worker.subject import Subjects
from tests.pathology.viewer.model.made_subject import silent


def asked(folder, slide, run, index=0, box=None, **means):
    """The answers about a tile, and about a box ``(left, top, right, bottom)``."""
    explained = Explained(folder, slide)
    means = Means({digest_of(run): str(run)}, "cpu", **means)
    subject = Subjects().get(explained, means, lambda what: None)
    tile = ask_tile(subject, TileQuestion(index), silent)
    if box is None:
        return tile, None
    left, top, right, bottom = map(float, box)
    ring = (left, top), (right, top), (right, bottom), (left, bottom)
    return tile, ask_mask(subject, MaskQuestion(((ring,),)), silent).result
