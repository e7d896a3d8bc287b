"""Every metric of maps that a study knows: its unit, its direction, whether a study is read by it.

What a map is of: in ``localisation``, ``confounder`` and ``grid`` the class whose evidence is known
(the tile's own, of tiles that have evidence); elsewhere the class that the network predicts.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pathology.benchmark.study.rows import Better, Value
from pathology.benchmark.tile_sets import Examples
from pathology.metrics.bootstrap import Estimate


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is.

    Args:
        what: in a line.
        better: which way.
        unit: of its values; none where they are shares or correlations.
        headline: whether a study is read by it.
    """

    what: str
    better: Better = "higher"
    unit: str = ""
    headline: bool = False


LOCALISATION = {
    "epg": Metric("share of a map's positive values in the mask", headline=True),
    "concentration": Metric("the same over the mask's share of the tile: 1 is chance", unit="x",
                            headline=True),
    "ap": Metric("average precision of a tile's pixels"),
    "auroc": Metric("area under the ROC curve of a tile's pixels"),
    "rra": Metric("share of the K highest pixels in the mask of K pixels"),
    "dice": Metric("Dice at the threshold that is best on validation"),
    "iou": Metric("overlap over union at that threshold"),
    "threshold_robustness": Metric("share of thresholds with at least 0.9 of the best Dice"),
    "pooled_ap": Metric("average precision of the pixels of all tiles together, maps as they are",
                        headline=True),
    "pxap": Metric("the same by the protocol of weakly supervised localisation: each map scaled"
                   " by itself", headline=True),
}  # fmt: skip

METRICS: dict[str, dict[str, Metric]] = {
    "localisation": {
        **LOCALISATION,
        **{
            f"region_{name}": Metric(
                f"{each.what}; mask: the region, not its nuclei", each.better, each.unit
            )
            for name, each in LOCALISATION.items()
        },
    },
    "confounder": {
        "mark_epg": Metric(
            "share of positive values on the planted mark, of the class it goes with"
        ),
        "mark_concentration": Metric(
            "the same over the mark's share of the tile: 1 is chance", unit="x"
        ),
        "mark_evidence_epg": Metric(
            "share of positive values on the evidence, of marked tiles", "none"
        ),
        "mark_reliance": Metric(
            "logit on the marked tile less that on the same without the mark:"
            " what the network owes to the mark",
            "none",
            "logits",
        ),
        "mark_flip": Metric("whether the predicted class changes when the mark is removed", "none"),
        "mark_agreement": Metric(
            "rank correlation over tiles of the map's sum on the mark with"
            " what the network owes to it"
        ),
    },
    "grid": {
        "gridpg": Metric("share of positive values in the cell of the class", headline=True),
        "empty_mass": Metric(
            "positive values of a mosaic without the class over those of one with it", "lower"
        ),
    },
    "faithfulness": {
        "deletion": Metric("area under the probability as the most relevant goes first", "lower"),
        "insertion": Metric("the same as the most relevant comes first"),
        "abpc": Metric("insertion less deletion: 0 is chance"),
        "logit_abpc": Metric("the same of the logit", unit="logits"),
        "road": Metric("mean of least relevant first less most relevant first, shapes hidden"),
        "sds": Metric(
            "rank correlation of cells' sums with what removing each cell does", headline=True
        ),
        "saco": Metric("whether groups of pixels that a map puts first matter more, pair by pair"),
        "infidelity": Metric(
            "error of sums over squares as a share of what removing them does", "lower"
        ),
        "infidelity_gain": Metric(
            "the same over that of a uniform map: below 1 is better than it", "lower", unit="x"
        ),
    },
    "idsds": {
        "idsds": Metric(
            "the same as sds, on the network after it learnt from tiles with deleted cells",
            headline=True,
        ),
    },
    "ledger": {
        "completeness_gap": Metric(
            "what values and constants leave of the logit, over its size", "lower"
        ),
        "pixel_share": Metric("pixels' share of the absolute sums of the logit's parts", "higher"),
        "position_share": Metric("that of position codes and tokens", "lower"),
        "bias_share": Metric("that of biases", "lower"),
        "other_share": Metric(
            "that of the rest: other constants, a baseline's logit, what does not add up", "lower"
        ),
    },
    "stability": {
        "stain_stability": Metric(
            "rank correlation under other amounts of stain, answer unchanged"
        ),
        "scanner_stability": Metric("the same under another lamp and sensor"),
        "shift_stability": Metric("the same of the field moved by some pixels"),
        "answers_held": Metric("share of changes under which the answer stays", "none"),
    },
    "worst_case": {
        "farthest": Metric(
            "distance, 0 to 1, of the farthest map that unseen changes reach", "lower"
        ),
        "chance_of_change": Metric("probability that unseen noise moves a map half away", "lower"),
    },
    "sanity": {
        "emprt": Metric("rise of the map's entropy under random parameters"),
        "parameter_similarity": Metric(
            "rank correlation with the map under random parameters", "lower"
        ),
        "label_similarity": Metric(
            "the same with that of a network trained on shuffled labels", "lower"
        ),
        "class_similarity": Metric("the same with the map of the second class", "lower"),
    },
    "folds": {
        "mege": Metric("nearness of maps of networks that learnt from other patients, both right"),
        "reco": Metric("whether maps are nearer where both networks are right than where one is"),
    },
    "asked_for_only": {
        "pointing_game": Metric("whether the highest pixel is in the mask; saturates"),
        "oracle_dice": Metric("Dice at each tile's own best threshold; an upper bound"),
        "max_sensitivity": Metric(
            "farthest relative move under noise; a constant map wins", "lower"
        ),
    },
    "cost": {
        "map_seconds": Metric("seconds per map", "lower", "s", headline=True),
        "map_memory": Metric("most memory of a batch of maps beyond the network's", "lower", "MiB"),
        "forward_passes": Metric("per map", "lower", "passes"),
        "backward_passes": Metric("per map", "lower", "passes"),
    },
    "refused": {"refused": Metric("the method is undefined or wrong on this network", "none")},
    "failed": {"failed": Metric("it could not be computed", "none")},
}
"""By group."""


def value(
    group: str,
    metric: str,
    number: float,
    *,
    example: str = "",
    patient: str = "",
    stratum: str = "",
    low: float = math.nan,
    high: float = math.nan,
    note: str = "",
) -> Value:
    """A value of a metric of the catalogue."""
    what = METRICS[group][metric]
    return Value(
        metric,
        float(number),
        group,
        example=example,
        patient=patient,
        stratum=stratum,
        low=low,
        high=high,
        unit=what.unit,
        better=what.better,
        headline=what.headline,
        note=note or ("not a finite number" if not math.isfinite(number) else ""),
    )


def per_example(
    group: str,
    metric: str,
    numbers: ArrayLike,
    examples: Examples,
    notes: Sequence[str] | str = "",
    stratum: str = "",
) -> Iterator[Value]:
    """A value for each example; ``notes``, one each or one for all, say why there is none."""
    found: NDArray[np.float64] = np.asarray(numbers, np.float64)
    for i, (number, name, patient) in enumerate(
        zip(found, examples.names, examples.patients, strict=True)
    ):
        why = notes if isinstance(notes, str) else notes[i]
        yield value(
            group, metric, number, example=name, patient=patient, stratum=stratum,
            note=why if np.isnan(number) else "",
        )  # fmt: skip


def pooled(group: str, metric: str, estimate: Estimate, note: str = "") -> Value:
    """A value of all together with its interval."""
    reasons = "; ".join(each for each in (note, estimate.note) if each)
    return value(group, metric, estimate.value, low=estimate.low, high=estimate.high, note=reasons)


def undefined(group: str, metrics: Iterable[str], why: str) -> list[Value]:
    """No value of any of these metrics, and why."""
    return [value(group, metric, math.nan, note=why) for metric in metrics]
