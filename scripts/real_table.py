"""The table of real tissue in docs/results.md: means over seeds, beside those of twins.

``scripts/real_tissue`` trains, evaluates and collects::

    python scripts/real_table.py --collect runs/real    # docs/real_{runs,differences}.csv
    python scripts/real_table.py                        # prints the table

A difference is of means over seeds on the same images. Its interval draws patients (nuclei) or
runs of neighbouring images (oral epithelium) and, for each model apart, seeds: what other patients
and other seeds might have given.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from pathology.metrics.predictions import GROUP
from pathology.outputs import complete_file

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "real_runs.csv"
DIFFERENCES = ROOT / "docs" / "real_differences.csv"
SETS = {"oscc": "oral epithelium, 2 classes", "nuclei": "colon nuclei, 4 classes"}
MEASURES = ("balanced_accuracy", "auroc", "f1", "ece")
PREFIX = "bcos_"
DRAWS = 2000


def collect(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What every evaluated run in ``folder`` came to, and every B-cos model against its twin."""
    rows: list[dict[str, Any]] = []
    shown: dict[tuple[str, str, int], pd.DataFrame] = {}
    for path in sorted(folder.glob("*_seed*/evaluation/val.json")):
        run = path.parents[1]
        name, _, seed = run.name.rpartition("_seed")
        model, _, data = name.rpartition("_")
        record = json.loads(path.read_text())
        config = yaml.safe_load((run / "config.yaml").read_text())
        row = {"data": data, "model": model, "seed": int(seed)}
        for measure in MEASURES:
            found = record["metrics"][measure]
            row[measure] = round(found["value"], 4)
            if measure == "balanced_accuracy":
                row |= {"low": round(found["low"], 4), "high": round(found["high"], 4)}
        steps = pd.read_csv(run / "logs" / "metrics.csv")["step"].max() + 1
        row |= {
            "epochs": config["trainer"]["max_epochs"],
            "steps": int(steps),
            "batch": config["data"]["batch_size"],
            "size_px": config["data"]["size_px"],
            "lr": config["model"]["lr"],
            "seconds": seconds(run),
        }
        rows.append(row)
        shown[data, model, int(seed)] = pd.read_parquet(path.with_suffix(".parquet"))
    if not rows:
        raise SystemExit(f"{folder}: no evaluated run; scripts/real_tissue makes them")
    runs = pd.DataFrame(rows).sort_values(["data", "model", "seed"]).astype({"seconds": "Int64"})
    differences = []
    for data, model in sorted({(data, model) for data, model, _ in shown}):
        twin = model.removeprefix(PREFIX)
        ours, theirs = (
            {seed: table for (d, m, seed), table in shown.items() if (d, m) == (data, name)}
            for name in (model, twin)
        )
        if twin == model or not theirs:
            continue
        value, low, high = difference(list(ours.values()), list(theirs.values()))
        differences.append(
            {"data": data, "model": model, "twin": twin, "seeds": f"{len(ours)} and {len(theirs)}",
             "balanced_accuracy": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
        )  # fmt: skip
    return runs, pd.DataFrame(differences)


def seconds(run: Path) -> int | None:
    """How long training took; of a run that was resumed nobody knows."""
    sessions = json.loads((run / "environment.json").read_text())["sessions"]
    if len(sessions) > 1:
        return None
    began = pd.Timestamp(sessions[0]["began"]).timestamp()
    return round((run / "checkpoints" / "last.ckpt").stat().st_mtime - began)


def difference(ours: list[pd.DataFrame], theirs: list[pd.DataFrame]) -> tuple[float, float, float]:
    """Balanced accuracy of ours less that of theirs, and its 95 % interval.

    Args:
        ours: a table of predictions per seed, of the same examples in the same order.
        theirs: likewise.
    """
    table = ours[0]
    labels = pd.factorize(table["label"], sort=True)[0]
    # Evaluations of before the column had a name of its own are read, too.
    groups = pd.factorize(table[GROUP if GROUP in table else "group"])[0]
    right = [np.stack([hits(one) for one in tables]) for tables in (ours, theirs)]
    rng = np.random.default_rng(0)
    once = np.ones(len(labels))
    value = recall(right[0].mean(0), labels, once) - recall(right[1].mean(0), labels, once)
    drawn = []
    for _ in range(DRAWS):
        count = groups.max() + 1
        weights = np.bincount(rng.integers(count, size=count), minlength=count)[groups].astype(
            float
        )
        means = [each[rng.integers(len(each), size=len(each))].mean(0) for each in right]
        drawn.append(recall(means[0], labels, weights) - recall(means[1], labels, weights))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return value, float(low), float(high)


def hits(table: pd.DataFrame) -> NDArray[np.float64]:
    """Whether the largest logit is the label's, per example."""
    logits = table.filter(like="logit_")
    return (logits.idxmax(axis=1) == "logit_" + table["label"]).to_numpy().astype(np.float64)


def recall(
    right: NDArray[np.float64], labels: NDArray[np.intp], weights: NDArray[np.float64]
) -> float:
    """Mean over classes of the weighted share of examples that are right; NaN without a class."""
    total = np.bincount(labels, weights)
    if not total.all():
        return float("nan")
    return float((np.bincount(labels, weights * right) / total).mean())


def table(runs: pd.DataFrame, differences: pd.DataFrame) -> str:
    """One line per model and set: means over seeds, their range, the difference to the twin."""
    lines = [
        "| data | model | seeds | balanced accuracy | AUROC | ECE | less the twin, points |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, title in SETS.items():
        own = runs[runs["data"] == data]
        for model in sorted(own["model"].unique(), key=lambda m: (m.removeprefix(PREFIX), m)):
            found = own[own["model"] == model]
            scores = found["balanced_accuracy"]
            pair = differences[(differences["data"] == data) & (differences["model"] == model)]
            told = ""
            if len(pair):
                one = pair.iloc[0]
                ends = f"{100 * one['low']:+.1f}, {100 * one['high']:+.1f}"
                told = f"{100 * one['balanced_accuracy']:+.1f} [{ends}]"
            spread = f"{scores.mean():.3f} ({scores.min():.3f} to {scores.max():.3f})"
            cells = [
                title, model, str(len(found)), spread,
                f"{found['auroc'].mean():.3f}", f"{found['ece'].mean():.3f}", told,
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Collect runs, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collect", type=Path, help="folder of runs of scripts/real_tissue")
    args = parser.parse_args()
    if args.collect:
        for path, found in zip((RUNS, DIFFERENCES), collect(args.collect), strict=True):
            with complete_file(path) as draft:
                found.to_csv(draft, index=False, lineterminator="\n")
    print(table(pd.read_csv(RUNS), pd.read_csv(DIFFERENCES)))


if __name__ == "__main__":
    main()
