"""A run, ready to explain slides, as ``--run`` and ``--members`` name it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathology.runs.encoder_choice import EncoderChoice
    from pathology.runs.scorers import Explainer
    from pathology.runs.trained import Trained

RAW = ":raw"
"""Behind a run that averages its weights: the weights that were trained, not their average."""


@dataclass(frozen=True)
class ReadyRun:
    """A run, ready to explain.

    Args:
        name: as it was asked for, without folders.
        explainer: the run.
        calibration: what its logits were divided by, where they were.
    """

    name: str
    explainer: "Explainer"
    calibration: dict[str, Any] | None = None

    @property
    def checkpoint(self) -> str:
        """Which weights."""
        return self.explainer.trained.checkpoint


def ready_run(
    run: str | Path,
    *,
    device: str,
    calibrated: bool,
    pooling: str | None,
    depth: str,
    choice: "EncoderChoice | None",
) -> ReadyRun:
    """A run that explains, as ``--run`` and ``--members`` name it.

    Args:
        run: folder or checkpoint; with ``:raw`` behind it, of a run trained with ``ema_decay``, the
            weights that were trained instead of their moving average.
        device: where to.
        calibrated: explain the logits as ``pathology calibrate`` has made them.
        pooling: of tile logits, for a run on tiles.
        depth: where explanations stop.
        choice: what made the features, for a run on slides.

    Raises:
        ManifestError, WeightsError: there is no such run or checkpoint.
        NotExplainableError, StampMismatchError, ValueError: as
            :func:`pathology.runs.scorers.make_explainer`; the run has no raw weights, or no
            calibration of its own.
    """
    from pathology.metrics import Calibration
    from pathology.metrics.calibration import FILE, apply_calibration
    from pathology.runs.scorers import make_explainer
    from pathology.runs.trained import load_trained

    path = Path(str(run).removesuffix(RAW))
    trained = load_trained(path, device)
    if str(run).endswith(RAW):
        trained = _raw(trained, path)
    task, calibration = trained.task, None
    if calibrated:
        calibration = Calibration.load(path / FILE, trained.checkpoint, task.classes)
        apply_calibration(getattr(task.model, "aggregator", task), calibration)
    explainer = make_explainer(trained, pooling, depth, choice)
    numbers = None if calibration is None else calibration.numbers()
    return ReadyRun(Path(run).resolve().name, explainer, numbers)


def _raw(trained: "Trained", path: Path) -> "Trained":
    """The same run with the weights that were trained; its task is changed."""
    from pathology.tasks.checkpoint import Run, read_trained

    file = Run(path).best if path.is_dir() else path
    stored = read_trained(file) if file.is_file() else {}
    if "current_model_state" not in stored:
        raise ValueError(
            f"{path}: keeps no raw weights beside their average, since it was not trained with"
            f" ema_decay or is no .ckpt; leave out {RAW}"
        )
    trained.task.load_state_dict(stored["current_model_state"])
    return replace(trained, checkpoint=trained.checkpoint + RAW)
