"""A metric as the table has it, and its name in words."""

import re
from dataclasses import dataclass

COST = "cost"
SLIDES = "slides"
"""Group of metrics whose examples are slides."""
_TITLES = {
    "epg": "EPG", "ap": "AP", "pxap": "PxAP", "auroc": "AUROC",
    "gridpg": "GridPG", "ece": "ECE", "sds": "SDS", "idsds": "IDSDS",
    "road": "ROAD", "rra": "RRA", "saco": "SaCo", "froc": "FROC", "abpc": "ABPC", "dice": "Dice",
    "iou": "IoU", "emprt": "eMPRT", "mege": "MeGe", "reco": "ReCo", "nll": "NLL", "f1": "F1",
    "cpu": "CPU", "auprc": "AUPRC",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as the table has it.

    Args:
        group: of metrics.
        name: in the table.
        unit: of its values.
        better: ``higher``, ``lower`` or ``none``.
        headline: among the few numbers that a study is read by.
    """

    group: str
    name: str
    unit: str = ""
    better: str = "higher"
    headline: bool = False

    @property
    def title(self) -> str:
        """As it is printed."""
        return title(self.name)

    @property
    def primary(self) -> str:
        """The role of the method that a study's claim is about."""
        return "contribution" if self.group == SLIDES else "bcos"

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is, 0 where neither."""
        return {"higher": 1, "lower": -1}.get(self.better, 0)


def title(name: str) -> str:
    """A metric's name in words."""
    text = " ".join(_TITLES.get(word, word) for word in re.split(r"[_ ]", name))
    return text[:1].upper() + text[1:] if text.split(" ")[0].islower() else text
