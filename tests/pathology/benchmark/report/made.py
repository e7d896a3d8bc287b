"""A made-up study whose answers are known, and its pictures."""

import numpy as np
import pandas as pd

from pathology.benchmark.report.pictures import Picture
from pathology.benchmark.study.rows import COLUMNS

BACKBONES = {
    "bcos_resnet18": ("bcos", "cnn", "resnet18"),
    "resnet18": ("conventional", "cnn", "resnet18"),
    "bcos_vitc_tiny": ("bcos", "vit", "vit_tiny"),
    "vit_tiny": ("conventional", "vit", "vit_tiny"),
}
CONTROLS = ("oracle", "random", "constant", "edge")
QUALITY = {
    "bcos": 0.75, "bcos_contrastive": 0.75, "input_x_gradient": 0.45, "integrated_gradients": 0.5,
    "smoothgrad": 0.5, "gradcam": 0.55, "occlusion": 0.6, "rise": 0.58, "lime": 0.5,
    "ledger": 0.4, "rollout": 0.4, "oracle": 1.0, "random": 0.2, "constant": 0.2, "edge": 0.3,
}  # fmt: skip
"""What a metric that works finds on average."""
# metric: group, better, headline, unit
METRICS = {
    "epg": ("localisation", "higher", True, ""),
    "concentration": ("localisation", "higher", False, "x"),
    "gridpg": ("grid", "higher", True, ""),
    "pooled_ap": ("localisation", "higher", True, ""),
    "sds": ("faithfulness", "higher", True, ""),
    "abpc": ("faithfulness", "higher", True, ""),
    "saco": ("faithfulness", "higher", True, ""),
    "stain_stability": ("stability", "higher", False, ""),
    "emprt": ("sanity", "higher", False, ""),
}


def fits(method, backbone):
    """Why a method does not fit a network; empty where it does."""
    family, architecture, _ = BACKBONES[backbone]
    if method.startswith("bcos") and family != "bcos":
        return "W(x) is of B-cos networks; this one is conventional"
    if method == "ledger" and family == "bcos":
        return "a B-cos network has bcos"
    if method == "rollout" and architecture == "cnn":
        return "rollout needs attention; a CNN has none"
    if method == "gradcam" and architecture == "vit":
        return "gradcam needs a spatial layer before pooling"
    return ""


def quality(metric, method):
    """Planted: B-cos is best, is beaten by rise on abpc, and saco knows nothing."""
    if metric == "saco":
        return 0.5
    if metric == "abpc":
        return {"rise": 0.65, "occlusion": 0.55}.get(method, 0.5 * QUALITY[method])
    return QUALITY[method]


def results(
    seed=0, study="made", seeds=(0, 1), examples=36, patients=12, data=("tissue", "cells"),
    methods=tuple(QUALITY), metrics=tuple(METRICS), backbones=tuple(BACKBONES),
):  # fmt: skip
    """Rows of a study."""
    random = np.random.default_rng(seed)
    rows = []

    def add(backbone, data, training, **values):
        family, architecture, pair = BACKBONES[backbone]
        rows.append(
            {
                "study": study, "data": data, "backbone": backbone, "family": family,
                "architecture": architecture, "pair": pair, "seed": training, "method": "",
                "group": "", "metric": "", "example": "", "patient": "", "stratum": "",
                "value": np.nan, "low": np.nan, "high": np.nan, "unit": "", "better": "higher",
                "headline": False, "note": "", **values,
            }
        )  # fmt: skip

    for name in data:
        hard = (
            random.normal(0, 0.08, examples)
            + random.normal(0, 0.05, patients)[np.arange(examples) % patients]
        )
        for backbone in backbones:
            for training in seeds:
                _backbone_rows(add, random, backbone, name, training)
                for method in methods:
                    reason = fits(method, backbone)
                    if reason:
                        add(backbone, name, training, method=method, group="refused", note=reason)
                        continue
                    if (method, backbone, training, name) == ("lime", "vit_tiny", 1, data[-1]):
                        note = "MemoryError: 12 GB wanted"
                        add(backbone, name, training, method=method, group="failed", note=note)
                        continue
                    _method_rows(
                        add, random, backbone, name, training, method, hard, patients, metrics
                    )
    frame = pd.DataFrame(rows)
    return frame.astype(COLUMNS)


def _backbone_rows(add, random, backbone, name, training):
    is_bcos = backbone.startswith("bcos")
    for metric, value, unit, better, group in (
        ("balanced_accuracy", 0.90 - 0.01 * is_bcos, "", "higher", "accuracy"),
        ("auroc", 0.95 - 0.01 * is_bcos, "", "higher", "accuracy"),
        ("ece", 0.05 + 0.01 * is_bcos, "", "lower", "accuracy"),
        ("parameters", 11.2e6, "", "none", "cost"),
        ("inference_rate", 400 - 150 * is_bcos, "images/s", "higher", "cost"),
        ("peak_memory", 310 + 60 * is_bcos, "MiB", "lower", "cost"),
        ("training_seconds", 200 + 60 * is_bcos, "s", "lower", "cost"),
    ):
        value *= 1 + random.normal(0, 0.01) * (metric != "parameters")
        ends = {"low": value - 0.03, "high": value + 0.03} if group == "accuracy" else {}
        add(
            backbone, name, training, metric=metric, value=value, unit=unit, better=better,
            group=group, headline=group == "accuracy", **ends,
        )  # fmt: skip


def _method_rows(
    add, random, backbone, name, training, method, hard, patients, metrics=tuple(METRICS)
):
    shared = {"method": method}
    for metric, (group, better, headline, unit) in METRICS.items():
        if metric not in metrics:
            continue
        mean = quality(metric, method)
        common = {
            **shared, "metric": metric, "group": group, "better": better, "headline": headline,
            "unit": unit,
        }  # fmt: skip
        if metric == "pooled_ap":
            value = mean + random.normal(0, 0.01)
            add(
                backbone, name, training, value=value, low=value - 0.04, high=value + 0.04, **common
            )
            continue
        for i, offset in enumerate(hard):
            value = mean + offset + random.normal(0, 0.05)
            note = ""
            if method == "constant" and metric in ("sds", "saco", "emprt"):
                value, note = np.nan, "a constant map has no order"
            elif metric == "epg" and method == "input_x_gradient" and i in (3, 4):
                value, note = np.nan, "no positive mass"
            add(
                backbone, name, training, value=value, note=note, example=f"{name}-{i:03d}",
                patient=f"patient-{i % patients:02d}", **common,
            )  # fmt: skip
        if metric == "epg":
            for stratum, shift in (("mark: pen", -0.2), ("no mark", 0.05)):
                value = mean + shift
                ends = {"low": value - 0.05, "high": value + 0.05}
                confounded = {**common, "group": "confounder", "metric": "mark_epg"}
                add(backbone, name, training, value=value, stratum=stratum, **ends, **confounded)
    if method in ("bcos", "ledger"):
        pixels = 0.93 if method == "bcos" else 0.08
        shares = {"pixel_share": pixels, "position_share": 0.05, "bias_share": 0.95 - pixels}
        for metric, value in {**shares, "completeness_gap": 1e-7}.items():
            add(
                backbone, name, training, metric=metric, value=value, group="ledger",
                better="none", **shared,
            )  # fmt: skip
    passes = {"rise": 500, "lime": 200, "occlusion": 169, "integrated_gradients": 50,
              "smoothgrad": 25}.get(method, 1)  # fmt: skip
    for metric, value, unit in (
        ("map_seconds", 0.01 * passes * (1 + random.random()), "s"),
        ("map_memory", 300 + passes / 10, "MiB"),
        ("forward_passes", passes, "passes"),
    ):
        add(
            backbone, name, training, metric=metric, value=value, unit=unit, group="cost",
            better="lower", headline=metric == "map_seconds", **shared,
        )  # fmt: skip


def without_masks(rows, data, metrics):
    """The same rows, as if a tile set had no masks for these metrics."""
    gone = (rows["data"] == data) & rows["metric"].isin(metrics) & (rows["stratum"] == "")
    told = rows[gone].drop_duplicates(["backbone", "seed", "method", "metric"])
    nothing = {"value": np.nan, "low": np.nan, "high": np.nan, "example": "", "patient": ""}
    told = told.assign(**nothing, note="the tile set has no masks of evidence")
    return pd.concat([rows[~gone], told], ignore_index=True).astype(COLUMNS)


def planted(rows, data, mean, owed=2.0):
    """Rows of a planted mark, of those that have EPG.

    Args:
        rows: of a study.
        data: name of the tile set.
        mean: by method, of the share of positive values on the mark; else 0.3.
        owed: logits that networks owe to the mark.
    """
    some = rows[(rows["data"] == data) & (rows["metric"] == "epg") & (rows["stratum"] == "")]
    some = some.assign(group="confounder", headline=False)
    shift = some["value"].fillna(0.5) * 0.01
    shares = some.assign(metric="mark_epg", value=some["method"].map(mean).fillna(0.3) + shift)
    owing = some.assign(metric="mark_reliance", better="none", value=owed + shift)
    return pd.concat([rows, shares, owing], ignore_index=True).astype(COLUMNS)


def pictures(seed=0, study="made", count=4, side=48):
    """Blobs, and what methods make of them."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    made = []
    for data in ("tissue", "cells"):
        for i in range(count):
            cy, cx = random.integers(12, side - 12, 2)
            mask = (y - cy) ** 2 + (x - cx) ** 2 < 64
            image = np.full((side, side, 3), (225, 190, 210), np.uint8)
            image[mask] = (90, 60, 140)
            image = np.clip(image + random.normal(0, 9, image.shape), 0, 255).astype(np.uint8)
            for backbone in BACKBONES:
                for method in ("bcos", "gradcam", "integrated_gradients", "random"):
                    if fits(method, backbone):
                        continue
                    noise = random.normal(0, 0.002, (side, side))
                    values = QUALITY[method] * mask * 0.01 + noise
                    made.append(
                        Picture(
                            study, data, backbone, 0, method, f"{data}-{i:03d}", image,
                            values.astype(np.float32), "tumour", mask,
                            "none" if method in ("gradcam", "random") else "logits",
                        )
                    )  # fmt: skip
    return made


def slides(study="made", count=12):
    """Rows of a study of slides: contributions find lesions, attention does not."""
    random = np.random.default_rng(1)
    rows = []
    for method, mean in (("contribution", 0.8), ("attention", 0.4), ("random", 0.1)):
        common = {"method": method, "headline": True}
        for i in range(count):
            one = {
                "example": f"test_{i}",
                "patient": f"test_{i}",
                "value": random.normal(mean, 0.05),
            }
            rows.append({**common, **one, "metric": "necessity of top tiles"})
        rows.append({**common, "metric": "FROC of lesions", "value": mean})
    rows.append({"method": "lrp", "metric": "refused", "note": "no rule", "headline": False})
    rows.append({"metric": "AUROC of slides", "value": 0.9, "headline": False})
    frame = pd.DataFrame(rows).assign(
        study=study, data="slides", backbone="gated", seed=0, group="slides", better="higher"
    )
    for name, kind in COLUMNS.items():
        if name not in frame:
            frame[name] = np.nan if kind == "float64" else ""
        elif kind == "string":
            frame[name] = frame[name].fillna("")
    return frame[list(COLUMNS)].astype(COLUMNS)
