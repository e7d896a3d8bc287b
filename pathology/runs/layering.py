"""What ``--members``, ``--jitter`` and ``--null`` of ``pathology explain`` add."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pathology.errors import StampMismatchError
from pathology.runs.ready_run import ReadyRun

if TYPE_CHECKING:
    from pathology.explain.layers.members import Member
    from pathology.explain.slide import SlideExplanation
    from pathology.tiling import TileGrid, TileSpec


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
