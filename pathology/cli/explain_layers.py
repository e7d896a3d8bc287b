"""What ``--members``, ``--jitter`` and ``--null`` of ``pathology explain`` add."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.errors import StampMismatchError

if TYPE_CHECKING:
    from pathology.cli.feature_slide import EncoderChoice
    from pathology.cli.scorers import Explainer
    from pathology.cli.trained import Trained
    from pathology.explain.layers.members import Member
    from pathology.explain.slide import SlideExplanation
    from pathology.tiling import TileGrid, TileSpec

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


@dataclass(frozen=True)
class Layering:
    """Whose mean is explained, and how many nulls it is held against.

    Args:
        runs: whose mean score is explained; nulls are of the first.
        jitter: shifts of the grid, each for every run; 1 is the grid as it is.
        nulls: how many; of seeds 0, 1, ...

    Raises:
        StampMismatchError: a run trained on other stains than the first.
        ValueError: one of other classes, another depth or the same weights; numbers that there
            cannot be.
    """

    runs: list[ReadyRun]
    jitter: int = 1
    nulls: int = 0

    def __post_init__(self) -> None:
        if self.jitter < 1:
            raise ValueError(f"--jitter must be at least 1, the grid as it is; got {self.jitter}")
        if self.nulls < 0 or self.nulls == 1:
            raise ValueError(f"--null must be 0, or at least 2 for a spread; got {self.nulls}")
        first, *others = self.runs
        known = {first.checkpoint: first.name}
        for each in others:
            ours, theirs = first.explainer.scorer.classes, each.explainer.scorer.classes
            if list(ours) != list(theirs):
                raise ValueError(
                    f"--members: {each.name} has the classes {', '.join(theirs)}, {first.name} has"
                    f" {', '.join(ours)}; members need the same in the same order"
                )
            depths = first.explainer.scorer.depth, each.explainer.scorer.depth
            if depths[0] != depths[1]:
                raise ValueError(
                    f"--members: {each.name} is explained to {depths[1]}, {first.name} to"
                    f" {depths[0]}; a mean is of one depth"
                )
            if each.explainer.trained.stain != first.explainer.trained.stain:
                raise StampMismatchError(
                    f"--members: {each.name} and {first.name} were not trained on tiles normalised"
                    " to the same target; members see the same pixels"
                )
            if each.checkpoint in known:
                raise ValueError(
                    f"--members: {each.name} has the same weights as {known[each.checkpoint]};"
                    " leave one out"
                )
            known[each.checkpoint] = each.name

    @property
    def settings(self) -> dict[str, Any] | None:
        """What decides the numbers besides the first run; None where nothing is added."""
        if len(self.runs) == 1 and self.jitter == 1 and not self.nulls:
            return None
        return {
            "members": [
                {"checkpoint": each.checkpoint, "calibration": each.calibration}
                | each.explainer.settings
                for each in self.runs[1:]
            ],
            "jitter": self.jitter,
            "null_seeds": list(self.seeds),
        }

    @property
    def seeds(self) -> range:
        """Of the nulls."""
        return range(self.nulls)

    def check_tiles(self, spec: "TileSpec", where: str) -> None:
        """Refuse tiles of another kind than any run was trained on.

        Raises:
            StampMismatchError: naming both.
        """
        for each in self.runs:
            each.explainer.check_tiles(spec, where)

    def members(self, grid: "TileGrid") -> list["Member"]:
        """Every run on every shift of a slide's tiles; the first run on the grid as it is first.

        Raises:
            ValueError: tiles are too close for as many shifts.
        """
        from pathology.explain.layers.members import Member, shift_px, shifted, shifts

        made, places = [], shifts(self.jitter)
        if len({shift_px(grid, share) for share in places}) < len(places):
            raise ValueError(
                f"--jitter: tiles {grid.spec.stride_px} px apart have no {self.jitter} shifts by"
                " whole pixels that differ; take fewer"
            )
        for share in places:
            pixels = shift_px(grid, share)
            moved = f", tiles moved by {pixels} px" if any(pixels) else ""
            for each in self.runs:
                scorer = each.explainer.scorer
                made.append(Member(each.name + moved, scorer, shifted(grid, share)))
        return made

    def words(self, result: "SlideExplanation") -> dict[str, str]:
        """What an explanation is the mean of and was held against, for its report."""
        told: dict[str, str] = {}
        if "members" in result.told:
            parts = [f"{len(self.runs)} runs: {', '.join(each.name for each in self.runs)}"]
            parts += [f"{self.jitter} shifts of the tiles"] if self.jitter > 1 else []
            told["mean of"] = (
                f"{' on '.join(parts if len(self.runs) > 1 else parts[1:])}; their scores spread by"
                f" {result.told['spread_of_scores']:.3g} logits (standard deviation)"
            )
        if "null" in result.told:
            null = result.told["null"]
            told["nulls"] = (
                f"{self.nulls} models of random weights: {null['beyond']:.0%} of the map's absolute"
                f" sum is where it exceeds all of them, p = {null['p']:.2g}, and can be no less"
                f" than {1 / (1 + self.nulls):.2g}"
            )
        return told


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
            :func:`pathology.cli.scorers.make_explainer`; the run has no raw weights, or no
            calibration of its own.
    """
    from pathology.cli.scorers import make_explainer
    from pathology.cli.trained import load_trained
    from pathology.metrics import Calibration
    from pathology.metrics.calibration import FILE, apply_calibration

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
