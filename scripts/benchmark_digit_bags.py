"""Train every aggregator on bags of digits and measure what its scores of tiles find.

Three toys whose key tiles are known (``pathology.benchmark.digit_bags``). All aggregators get the
same features (pixels and their complement, no encoder), the same bags, widths, optimiser, loss
(binary cross-entropy of each logit), number of epochs, and the same few learning rates, of which
the one with the lowest validation loss of the first seed is taken. Of each training the epoch with
the lowest validation loss counts. Then AUROC of test bags (one against rest, mean over classes),
and AUPRC-2 (``pathology.benchmark.key_tiles``), mean over test bags and classes, of every way to
score tiles that the aggregator has::

    OMP_NUM_THREADS=1 python scripts/benchmark_digit_bags.py             # about half an hour
    OMP_NUM_THREADS=1 python scripts/benchmark_digit_bags.py --aggregators abmil bcos_pooled

What was measured is kept in ``--runs`` as it comes, so to resume is to run again; several processes
may share the file, each with its own ``--aggregators``. Every row has a stamp of the code that made
it, the aggregator's own included, and rows of other code are not used. The table in ``--out`` has
means and standard deviations over seeds, and differences to ``abmil`` with 95 % intervals of paired
seeds (Student's t): of AUROC, and of AUPRC-2 to the best score that ``abmil`` has. ``--table``
makes it of what is there so far, without spread and intervals where that is one seed.

Sizes, options and defaults were chosen on validation bags of the first seed; that most aggregators
have two linear units behind an output was kept after a look at test bags.
"""

import argparse
import copy
import csv
import hashlib
import inspect
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm import tqdm

from bcos_vit.losses import OneHotBCE
from pathology.aggregators import AGGREGATORS, Aggregator, make_aggregator
from pathology.benchmark.digit_bags import TOYS, DigitBags, digit_bags
from pathology.benchmark.key_tiles import key_tile_precision
from pathology.benchmark.tile_scores import SCORES, tile_scores
from pathology.outputs import complete_file

OUT = Path(__file__).parents[1] / "docs" / "digit_bags.csv"
RUNS = Path(__file__).parents[1] / "runs" / "digit_bags.csv"
BAGS = {"train": 1000, "val": 250, "test": 1000}
TILES, SCORED = 20, 100  # tiles of a bag; test bags whose tiles are scored
SEEDS, RATES = 5, (1e-2, 3e-2)  # unless others are asked for
EPOCHS, BATCH, WEIGHT_DECAY = 15, 50, 1e-4
# Of every aggregator that has such an option.
OPTIONS = {"hidden": 64, "attention_hidden": 32, "dim": 64, "expected_tiles": TILES}
BASELINE = "abmil"
KEY = ("toy", "aggregator", "seed", "rate", "stamp")
PARTS = [f"pathology.benchmark.{name}" for name in ("digit_bags", "key_tiles", "tile_scores")]
FIELDS = (*KEY, "val_loss", "auroc", *SCORES, "seconds")


def build(name: str, outputs: int) -> Aggregator:
    """An aggregator of the common widths, told how many tiles to expect."""
    known = inspect.signature(AGGREGATORS[name]).parameters
    return make_aggregator(name, 128, outputs, **{k: v for k, v in OPTIONS.items() if k in known})


def train(
    name: str, parts: dict[str, DigitBags], rate: float, seed: int
) -> tuple[Aggregator, float]:
    """The network of the epoch with the lowest validation loss, and that loss."""
    torch.manual_seed(seed)
    data, val = parts["train"], parts["val"]
    aggregator = build(name, data.evidence.shape[-1])
    loss_of = OneHotBCE()
    optimiser = torch.optim.AdamW(
        aggregator.parameters(), rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    steps = EPOCHS * -(-BAGS["train"] // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, pct_start=0.1
    )
    best, lowest = copy.deepcopy(aggregator.state_dict()), float("inf")
    for _ in range(EPOCHS):
        aggregator.train()
        for rows in torch.randperm(BAGS["train"]).split(BATCH):
            features, labels = data.features[rows], data.labels[rows]
            loss = loss_of(aggregator(features), labels)
            if hasattr(aggregator, "auxiliary_loss"):
                loss = loss + aggregator.auxiliary_loss(features, None, labels)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(aggregator.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        loss = float(loss_of(logits_of(aggregator, val.features), val.labels))
        if loss < lowest:
            best, lowest = copy.deepcopy(aggregator.state_dict()), loss
    aggregator.load_state_dict(best)
    return aggregator.eval(), lowest


@torch.no_grad()
def logits_of(aggregator: Aggregator, features: Tensor) -> Tensor:
    """In evaluation, in batches."""
    aggregator.eval()
    return torch.cat([aggregator(part) for part in features.split(128)])


def measure(aggregator: Aggregator, test: DigitBags) -> dict[str, float]:
    """AUROC, and AUPRC-2 by score; NaN for scores that there are not."""
    probabilities = logits_of(aggregator, test.features).softmax(-1).double().numpy()
    if probabilities.shape[1] == 2:
        auroc = roc_auc_score(test.labels, probabilities[:, 1])
    else:
        probabilities /= probabilities.sum(1, keepdims=True)
        auroc = roc_auc_score(test.labels, probabilities, multi_class="ovr")
    found = dict.fromkeys(SCORES, float("nan"))
    evidence = test.evidence[:SCORED]
    for name, scores in tile_scores(aggregator, test.features[:SCORED]).items():
        classes = range(scores.shape[-1])
        by_class = [key_tile_precision(scores[..., c], evidence[..., c]) for c in classes]
        found[name] = float(torch.cat(by_class).nanmean())
    return {"auroc": float(auroc), **found}


class Runs:
    """What was measured so far, a row per training, on disk as it comes."""

    def __init__(self, path: Path) -> None:
        self.path, self.stamps = path, {name: code_stamp(name) for name in AGGREGATORS}
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(",".join(FIELDS) + "\n")
        table = pd.read_csv(path, dtype={"stamp": str})
        if tuple(table.columns) != FIELDS:
            raise SystemExit(f"{path}: has other columns than these runs; choose another --runs")
        table = table[table["stamp"] == table["aggregator"].map(self.stamps)]
        self.rows = {tuple(row[k] for k in KEY): row for row in table.to_dict("records")}

    def run(self, toy: str, name: str, seed: int, rate: float, bags: "Bags") -> dict:
        """The row, measured now if it is not there."""
        key = (toy, name, seed, rate, self.stamps[name])
        if key not in self.rows:
            start = time.perf_counter()
            aggregator, loss = train(name, bags.of(toy, seed), rate, seed)
            row = dict(zip(KEY, key, strict=True)) | {"val_loss": loss}
            row |= measure(aggregator, bags.of(toy, seed)["test"])
            row["seconds"] = time.perf_counter() - start
            self.rows[key] = row
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(row)
        return self.rows[key]


def code_stamp(name: str) -> str:
    """Of how it is trained and measured, the toys and scores, and what the aggregator is made of.

    Not of the libraries, nor of the layers of ``bcos_vit``.
    """
    found, left = set(), {AGGREGATORS[name].__module__}
    while left:
        found |= left
        parts = {
            getattr(value, "__module__", None) or ""
            for module in left
            for value in vars(sys.modules[module]).values()
        }
        left = {part for part in parts if part.startswith("pathology.aggregators.")} - found
    modules = [sys.modules[part] for part in (*sorted(found), *PARTS)]
    code = [inspect.getsource(part) for part in (build, train, logits_of, measure, *modules)]
    code.append(repr((BAGS, TILES, SCORED, EPOCHS, BATCH, WEIGHT_DECAY, OPTIONS)))
    return hashlib.sha256("".join(code).encode()).hexdigest()[:8]


class Bags:
    """The bags of a toy and seed, made once while they are asked for."""

    def __init__(self) -> None:
        self.key, self.parts = ("", -1), {}

    def of(self, toy: str, seed: int) -> dict[str, DigitBags]:
        if self.key != (toy, seed):
            self.parts = {s: digit_bags(toy, s, n, TILES, seed) for s, n in BAGS.items()}
            self.key = (toy, seed)
        return self.parts


def chosen(runs: Runs, names: list[str], seeds: int, tried: Sequence[float]) -> pd.DataFrame:
    """Rows of each toy, aggregator and seed at the aggregator's learning rate."""
    bags, rates, rows = Bags(), {}, []
    total = len(TOYS) * len(names) * (len(tried) + seeds - 1)
    with tqdm(total=total, unit="run") as bar:
        for seed in range(seeds):
            for toy, name in itertools.product(TOYS, names):
                bar.set_postfix_str(f"seed {seed} {toy} {name}")
                found = []
                for rate in [rates[toy, name]] if seed else tried:
                    found.append(runs.run(toy, name, seed, rate, bags))
                    bar.update()
                best = min(found, key=lambda row: row["val_loss"])
                rates[toy, name] = best["rate"]
                rows.append(best)
    return pd.DataFrame(rows)


def measured(runs: Runs, names: list[str], rates: Sequence[float]) -> pd.DataFrame:
    """Rows there are, of each toy and aggregator at its learning rate by what there is."""
    table = pd.DataFrame(runs.rows.values(), columns=list(FIELDS))
    table = table[table["aggregator"].isin(names) & table["rate"].isin(rates)]
    first = table[table["seed"] == 0].sort_values("val_loss")
    best = first.drop_duplicates(["toy", "aggregator"])[["toy", "aggregator", "rate"]]
    return table.merge(best)


def paired(values: pd.Series, others: pd.Series) -> tuple[float, float, float]:
    """Mean difference of the seeds that both have, with its 95 % interval; NaN of one seed."""
    gap = (values - others).dropna()
    half = float("nan")
    if len(gap) > 1:
        half = stats.t.ppf(0.975, len(gap) - 1) * gap.std() / len(gap) ** 0.5
    return float(gap.mean()), float(gap.mean() - half), float(gap.mean() + half)


def summary(rows: pd.DataFrame, tried: Sequence[float]) -> pd.DataFrame:
    """Tidy: a row per toy, aggregator and measure."""
    rows = rows.sort_values(["toy", "aggregator"], key=lambda c: c.map((*TOYS, *AGGREGATORS).index))
    table = []
    for toy, of_toy in rows.groupby("toy", sort=False):
        by_name = {n: g.set_index("seed") for n, g in of_toy.groupby("aggregator", sort=False)}
        base = by_name.get(BASELINE)
        best = None if base is None else base[list(SCORES)].mean().idxmax()
        for name, group in by_name.items():
            for column in ("auroc", *SCORES):
                values = group[column]
                if values.isna().any():
                    continue
                row = {
                    "toy": toy, "aggregator": name, "exact": AGGREGATORS[name].exact,
                    "measure": "auroc" if column == "auroc" else "auprc_2",
                    "score": "" if column == "auroc" else column,
                    "mean": values.mean(), "sd": values.std(), "seeds": len(values),
                    "rate": group["rate"].iloc[0], "rates_tried": " ".join(map(str, tried)),
                    "stamp": group["stamp"].iloc[0],
                }  # fmt: skip
                if base is not None:
                    gap = paired(values, base["auroc" if column == "auroc" else best])
                    row |= dict(zip(("to_abmil", "low", "high"), gap, strict=True))
                table.append(row)
    return pd.DataFrame(table)


def show(table: pd.DataFrame) -> None:
    """AUROC with its difference to ABMIL, and AUPRC-2 by score."""
    for toy, part in table.groupby("toy", sort=False):
        print(f"\n{toy:16} {'AUROC':>13} {'to abmil':>23}" + "".join(f"{s:>16}" for s in SCORES))
        for name, group in part.groupby("aggregator", sort=False):
            rows = {row["score"]: row for row in group.to_dict("records")}
            line = f"{name:16} {spread(rows['']):>13}"
            if "to_abmil" in rows[""]:
                gap = rows[""]
                text = f"{gap['to_abmil']:+.3f}"
                if gap["seeds"] > 1:
                    text += f" [{gap['low']:+.3f}, {gap['high']:+.3f}]"
                line += f" {text:>23}"
            for score in SCORES:
                line += f"{spread(rows[score]) if score in rows else '-':>16}"
            print(line)


def spread(row: dict) -> str:
    """Mean and standard deviation, if there is one."""
    return f"{row['mean']:.3f}" + (f" ± {row['sd']:.3f}" if row["seeds"] > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggregators", nargs="+", choices=list(AGGREGATORS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="of what there is, nothing trained")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: at least 2, for a spread")
    torch.set_num_threads(1)
    names = options.aggregators or list(AGGREGATORS)
    runs = Runs(options.runs)
    if options.table:
        rows = measured(runs, names, options.rates)
    else:
        rows = chosen(runs, names, options.seeds, options.rates)
    table = summary(rows, options.rates)
    with complete_file(options.out) as draft:
        table.to_csv(draft, index=False, float_format="%.4g")
    show(table)


if __name__ == "__main__":
    main()
