"""Training by the verb, as anybody would: ``pathology train`` in a process of its own."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathology.benchmark.backbones.backbone import Backbone
from pathology.benchmark.tile_sets import TileSet
from pathology.errors import TrainingError
from pathology.outputs import alone_in, complete_file, writable_folder
from pathology.tasks.checkpoint import Run

PROGRAM = (sys.executable, "-m", "pathology.cli.child")
LOG, COST = "study.log", "study_cost.json"
PLACES = ("--out", "--data.manifest", "--model.init_from")  # where things are, not what
VERSION = 2  # raised when the same settings train another way
EPOCHS = 10  # unless a study says otherwise
PACE_S = 0.5
PATIENCE_S = 60.0  # to save its state when it is told to stop, or when its study was killed

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What a training took, of all its sessions together.

    Args:
        seconds: on the clock, from the first import to the last file; longer where other trainings
            run beside it.
        cpu_seconds: of its processors.
        peak_mib: most memory that the process had at a time, libraries too; not of a GPU.
        is_whole: whether all sessions are known; one that was killed tells nothing.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    is_whole: bool


def command(
    backbone: Backbone,
    tile_set: TileSet,
    seed: int,
    out: Path,
    further: Mapping[str, Any] | None = None,
) -> list[str]:
    """The words that train a backbone, without the program's name.

    Args:
        backbone: what is trained.
        tile_set: on what.
        seed: of weights, order and augmentation.
        out: the run's folder.
        further: settings for all backbones of the study; a backbone's own win.
    """
    settings: dict[str, Any] = {
        "model.model": backbone.model,
        "data.manifest": str(tile_set.manifest),
        "data.classes": list(tile_set.classes),
        "data.num_workers": 0,
        "data.augment": "turns",
        "trainer.enable_progress_bar": False,
    }
    if backbone.model_args:
        settings["model.model_args"] = dict(backbone.model_args)
    settings |= backbone.settings(further)
    # The last epoch alone is validated, so nothing is chosen: an AUROC that is soon at its best
    # would take a network half trained, and that of one of a pair.
    settings.setdefault("trainer.max_epochs", EPOCHS)
    settings.setdefault("trainer.check_val_every_n_epoch", settings["trainer.max_epochs"])
    words = ["train", "--out", str(out), "--seed_everything", str(seed)]
    for name, value in settings.items():
        words += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
    return words


def train(
    backbone: Backbone,
    tile_set: TileSet,
    seed: int,
    out: Path,
    further: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a backbone, go on with it where it was stopped, or leave it as it is if finished.

    Args:
        backbone: what is trained.
        tile_set: on what.
        seed: of weights, order and augmentation.
        out: the run's folder; what the verb prints goes to ``study.log`` in it, what it took to
            ``study_cost.json``.
        further: settings for all backbones of the study.
        progress: called twice a second with a line on the last epoch, empty before the first; what
            it raises ends the training.

    Returns:
        The run's folder.

    Raises:
        TrainingError: the verb failed, as where the folder holds another run; with its last line.
        OutputError: the folder cannot be written, or another process trains in it.
    """
    run = Run(writable_folder(out))
    with alone_in(out, "training in it", PATIENCE_S):
        pass  # the training of a study that was killed has saved its state
    words = command(backbone, tile_set, seed, out, further)
    sessions = _sessions(out)
    is_finished = run.finished.is_file()
    if is_finished and sessions and _bound(sessions[-1]["words"]) == _bound(words):
        return out
    # Of a finished run the verb itself tells whether it is the one wanted; that costs it nothing.
    if not is_finished:
        sessions.append({"words": words})
        _write_sessions(out, sessions)
    with (out / LOG).open("a") as log:
        start = time.perf_counter()
        # It ends where its input does: with this process, whatever becomes of that.
        with subprocess.Popen(
            [*PROGRAM, *words], stdin=subprocess.PIPE, stdout=log, stderr=log
        ) as process:
            code, used = _wait(process, run, progress)
        if not is_finished:
            sessions[-1] |= {"seconds": time.perf_counter() - start, "exit": code} | used
            _write_sessions(out, sessions)
    if code or not run.finished.is_file():
        raise TrainingError(
            f"{out}: training {backbone.name} failed (exit {code}): {_last_line(out / LOG)}; the"
            f" whole output is in {LOG} there"
        )
    return out


def training_cost(run: Path) -> TrainingCost | None:
    """What a run of :func:`train` took; None where nobody measured it."""
    known = [each for each in _sessions(run) if "seconds" in each]
    if not known:
        return None
    peaks = [each["peak_mib"] for each in known if "peak_mib" in each]
    return TrainingCost(
        sum(each["seconds"] for each in known),
        sum(each.get("cpu_seconds", float("nan")) for each in known),
        max(peaks, default=float("nan")),
        len(known) == len(_sessions(run)),
    )


def _wait(
    process: "subprocess.Popen[bytes]", run: Run, progress: Progress | None
) -> tuple[int, dict[str, float]]:
    """Exit code of a training and what the system says that it used."""
    peak = 0.0
    try:
        while True:
            peak = max(peak, _held_mib(process.pid))
            ended, code, used = _look(process)
            if progress:
                progress(_epoch_line(run))
            if ended:
                return code, used | ({"peak_mib": peak} if peak else {})
            time.sleep(PACE_S)
    except BaseException:
        # It saves its state when told to stop; never is it left behind.
        if process.returncode is None:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        raise


def _look(process: "subprocess.Popen[bytes]") -> tuple[bool, int, dict[str, float]]:
    """Whether a process has ended, its exit code and use of the machine."""
    if not hasattr(os, "wait4"):  # Windows
        code = process.poll()
        return code is not None, code or 0, {}
    found, status, used = os.wait4(process.pid, os.WNOHANG)
    if not found:
        return False, 0, {}
    process.returncode = os.waitstatus_to_exitcode(status)
    found_out = {"cpu_seconds": used.ru_utime + used.ru_stime}
    if sys.platform == "darwin":
        found_out["peak_mib"] = used.ru_maxrss / 2**20
    return True, process.returncode, found_out


def _held_mib(process: int) -> float:
    """The most memory that a process has held so far; 0 where the system does not say.

    What Linux tells at its end is no use: there the memory of whoever started it counts, too.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    held = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(held[0]) / 2**10 if held else 0.0


def _epoch_line(run: Run) -> str:
    """The last epoch that was validated, and how well."""
    try:
        with (run.logs / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("val_balanced_accuracy")]
    except (OSError, csv.Error):
        return ""
    if not rows:
        return ""
    last = rows[-1]
    return (
        f"epoch {int(float(last['epoch'])) + 1}, balanced accuracy of validation"
        f" {float(last['val_balanced_accuracy']):.3f}"
    )


def _bound(words: Sequence[str]) -> dict[str, str]:
    """Settings by name, without places: a study's folder may be moved."""
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    return {name: value for name, value in pairs.items() if name not in PLACES}


def _sessions(run: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads((run / COST).read_text())["sessions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found


def _write_sessions(run: Path, sessions: list[dict[str, Any]]) -> None:
    with complete_file(run / COST) as draft:
        draft.write_text(json.dumps({"sessions": sessions}, indent=1) + "\n")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")
