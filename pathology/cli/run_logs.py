"""Curves of a run, which survive that it is killed and resumed."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from pathology.outputs import complete_file
from pathology.tasks.checkpoint import Run


class Curves(Logger):
    """``logs/metrics.csv``: a row for whatever is measured at a step, written at once.

    Lightning's own CSV logger begins anew when a run is resumed.

    Args:
        run: the run's folder.
        step: steps that were done when training goes on; later rows will be written again.
    """

    def __init__(self, run: Run, step: int = 0) -> None:
        super().__init__()
        self.path, self.step = run.logs / "metrics.csv", step
        self._columns: list[str] = []
        self._is_open = False

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return self.path.parent.name

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """They stand in the run's ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {name: float(value) for name, value in metrics.items()}
        row |= {"epoch": int(row["epoch"])} if "epoch" in row else {}
        if not self._is_open:
            self._write([r for r in read_curves(self.path) if int(r["step"]) < self.step])
            self._is_open = True
        new = [name for name in row if name not in self._columns]
        if new:
            rows = read_curves(self.path)
            self._columns += sorted(new)
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row | {"step": step})

    def _write(self, rows: list[dict[str, str]]) -> None:
        if not self._columns:
            self._columns = list(rows[0]) if rows else ["step", "epoch"]
        with complete_file(self.path) as draft, draft.open("w", newline="") as file:
            table = csv.DictWriter(file, self._columns)
            table.writeheader()
            table.writerows(rows)


def read_curves(path: Path) -> list[dict[str, str]]:
    """The rows of a ``metrics.csv``; one that a kill has cut is left out."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return list(csv.DictReader(line for line in lines if line.endswith("\n")))


def curve_loggers(run: Run, step: int) -> list[Logger]:
    """The loggers that every run has: CSV and TensorBoard.

    Args:
        run: the run's folder.
        step: of the checkpoint that training goes on from; later figures will be logged again.
    """
    tensorboard = TensorBoardLogger(run.folder, name="", version="logs", purge_step=step)
    return [Curves(run, step), tensorboard]
