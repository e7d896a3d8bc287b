"""``pathology summarise``: several runs in one table, and one side against another."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pathology.cli.run_function import run_function

if TYPE_CHECKING:
    from pathology.metrics.folds import Side


def summarise(
    runs: list[str],
    against: list[str] | None = None,
    split: str = "val",
    calibrated: bool = False,
    repeats: int = 1000,
    out: Path | None = None,
) -> int:
    """Summarise runs that were evaluated: `pathology summarise RUN... [--against RUN...]`.

    Runs on the same examples are seeds: mean and standard deviation over runs, and the interval of
    the mean. Runs on disjoint examples are folds: the same, and the measure of all their
    predictions pooled with its interval. Intervals are by bootstrap over patients, as evaluated.

    Args:
        runs: folders of runs after `pathology evaluate`, or what its --out was.
        against: likewise, other runs on the same examples (e.g. conventional twins, one per seed);
            prints differences with intervals of the same draws.
        split: which measures.
        calibrated: those of `pathology evaluate --calibrated`.
        repeats: bootstrap draws.
        out: CSV file for the table, all measures by class included.
    """
    from pathology.metrics.folds import compare, read_evaluation, together
    from pathology.metrics.folds import summarise as table_of
    from pathology.outputs import complete_file

    stem = split + ("_calibrated" if calibrated else "")
    side, other = (
        None if not folders else together([read_evaluation(Path(one), stem) for one in folders])
        for folders in (runs, against)
    )
    if side is None:
        raise ValueError("give the folder of at least one run")
    table = table_of(side, repeats=repeats)
    _print_side(side, stem)
    shown = table[~table["measure"].str.contains("/")]
    for row in shown.to_dict("records"):
        spread = "" if side.kind == "one" else f"{row['mean']:.3f} ± {row['sd']:.3f}   "
        print(
            f"  {row['measure']:<18} {spread}{_interval(row['together'], row['low'], row['high'])}"
        )
    if other is not None:
        differences = compare(side, other, repeats=repeats)
        _print_side(other, stem, "minus ")
        for name, estimate in differences.items():
            if "/" not in name:
                found = _interval(estimate.value, estimate.low, estimate.high, sign="+")
                print(f"  {name:<18} {found}")
        for key in ("value", "low", "high"):
            column = f"difference_{key}" if key != "value" else "difference"
            table[column] = [getattr(differences[name], key) for name in table["measure"]]
    if out is not None:
        with complete_file(out) as draft:
            table.to_csv(draft, index=False)
        print(f"  all measures: {out}")
    return 0


def _print_side(side: "Side", stem: str, before: str = "") -> None:
    part = side.predictions
    groups = "" if part.groups is None else f" of {len(set(part.groups))} groups"
    what = {
        "one": "run",
        "seeds": "seeds (mean ± sd over runs, then their mean with its interval)",
        "folds": "folds (mean ± sd over runs, then all predictions pooled)",
    }[side.kind]
    print(f"{before}{len(side.evaluations)} {what}: {len(part)} examples{groups}, {stem}")


def _interval(value: float, low: float, high: float, sign: str = "") -> str:
    if value != value:
        return "not defined"
    ends = "" if low != low else f" [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"{value:{sign}.3f}{ends}"


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(summarise, _lists(arguments))


def _lists(arguments: Sequence[str]) -> list[str]:
    """Folders as people type them, one behind the other, as lists."""
    found: dict[str, list[str]] = {"runs": [], "against": []}
    rest: list[str] = []
    into, takes_value = "runs", False
    for i, word in enumerate(arguments):
        if takes_value:
            rest.append(word)
            takes_value = False
        elif word in ("--runs", "--against"):
            into = word.removeprefix("--")
        elif word.startswith("-"):
            rest.append(word)
            following = arguments[i + 1] if i + 1 < len(arguments) else ""
            is_switch = word in ("--calibrated", "-h", "--help")
            takes_value = "=" not in word and (not is_switch or following in ("true", "false"))
        else:
            found[into].append(word)
    return [f"--{name}={json.dumps(folders)}" for name, folders in found.items() if folders] + rest
