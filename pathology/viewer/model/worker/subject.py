"""An explanation to ask about: its slide, tiles and networks, as they were when it was made."""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bcos_vit.errors import NotExplainableError
from bcos_vit.explain.trace import PIXELS
from pathology.errors import ManifestError, StampMismatchError
from pathology.explain.results.stored import StoredExplanation, load_explanation
from pathology.explain.scorers.aggregated_features import AggregatedFeatures
from pathology.explain.scorers.dense_logits import DenseLogits
from pathology.explain.scorers.pooled_logits import PooledLogits
from pathology.explain.slide import Progress, Tiles, batches_of
from pathology.explain.targets import Target, parse_target
from pathology.runs.ready_run import RAW, ReadyRun, ready_run
from pathology.slides import Slide, open_slide
from pathology.tiling import TileGrid, TileSpec
from pathology.tiling.grid import GridSource
from pathology.viewer.model.question import Explained, Means, record_hash
from pathology.viewer.model.weights import digest_of

BATCH = 16
"""Tiles at once, as in ``pathology explain``."""
MODELS, SUBJECTS = 4, 2
"""Runs and explanations that stay loaded."""
SUMMED = ("aggregator", "encoder", "dense_halo_px", "pooling")
"""Settings of a run by which tiles make a score."""

AnyScorer = PooledLogits | DenseLogits | AggregatedFeatures


@dataclass
class Member:
    """One of those whose mean score is explained; mostly the only one.

    Args:
        scorer: its model, with the depth of the explanation.
        grid: its tiles.
        rows: theirs in the explanation's table.
        share: of its score in the mean.
        normalise: what tiles go through before they are encoded.
        known: ``(tiles, k)`` logits as the table has them, or features once they are computed.
    """

    scorer: AnyScorer
    grid: TileGrid
    rows: NDArray[np.intp]
    share: float
    normalise: Tiles | None = None
    known: Tensor | None = None

    @cached_property
    def in_pixels(self) -> AnyScorer | None:
        """The scorer with explanations that go to pixels; None where the model has none."""
        if self.scorer.depth == PIXELS:
            return self.scorer
        try:
            return replace(self.scorer, depth=PIXELS)
        except (NotExplainableError, ValueError):
            return None

    @property
    def is_of_slides(self) -> bool:
        """Whether the score is made of all tiles' features together."""
        return isinstance(self.scorer, AggregatedFeatures)

    @property
    def halo(self) -> tuple[float, float]:
        """How far the model sees around a tile, in level-0 pixels along x and y."""
        if not isinstance(self.scorer, DenseLogits):
            return 0.0, 0.0
        width, height = self.grid.tile_size
        share = self.scorer.model.halo_px / self.grid.spec.size_px
        return share * width, share * height

    def seen(self, pixels: Tensor) -> Tensor:
        """What the network sees of uint8 tiles."""
        return self.scorer.encoding(pixels if self.normalise is None else self.normalise(pixels))


@dataclass
class Subject:
    """An explanation, its slide, and its members.

    Args:
        explanation: as stored.
        slide: open, in the colour and with the mpp of then.
        members: whose mean is explained.
    """

    explanation: StoredExplanation
    slide: Slide
    members: list[Member] = field(default_factory=list)

    @property
    def tiles(self) -> pd.DataFrame:
        return self.explanation.tiles

    @property
    def target(self) -> Target:
        """What is explained."""
        return self.named(self.explanation.target)

    def named(self, target: str) -> Target:
        """A target of the models.

        Raises:
            ValueError: there is none of this name.
        """
        return parse_target(target, self.members[0].scorer.classes)

    def member(self, index: int) -> tuple[Member, int]:
        """Whose tile a row of the table is, and its number among that member's.

        Raises:
            ValueError: there is no such row.
        """
        for member in self.members:
            place = int(np.searchsorted(member.rows, index))
            if place < len(member.rows) and member.rows[place] == index:
                return member, place
        raise ValueError(f"index must be below {len(self.tiles)}, the number of tiles; got {index}")

    def known(self, member: Member, progress: Progress) -> Tensor:
        """What a first pass tells of a member's tiles; what the table does not have is computed.

        Logits are those that were stored, so that what is recomputed can be held against them.
        """
        if member.known is None:
            known: Tensor | None = None
            missing = np.arange(len(member.grid))
            if not member.is_of_slides:
                names = [f"logit_{name}" for name in member.scorer.classes]
                stored = self.tiles.loc[member.rows, names].to_numpy(np.float64, copy=True)
                missing, known = np.flatnonzero(np.isnan(stored).any(1)), torch.from_numpy(stored)
            what = "encoding all tiles" if member.is_of_slides else "scoring tiles"
            for numbers, rows in self.look(member, missing, progress, what):
                if known is None:
                    known = rows.new_empty(len(member.grid), rows.shape[1])
                known[numbers] = rows.to(known)
            assert known is not None
            member.known = known
        return member.known

    def look(
        self, member: Member, tiles: NDArray[np.intp], progress: Progress, what: str
    ) -> Iterable[tuple[list[int], Tensor]]:
        """Logits or features of some tiles, batch by batch."""
        windows = member.scorer.windows(member.grid, tiles)
        if not windows:
            return
        read = batches_of(
            self.slide, member.grid, member.scorer, batch_size=BATCH, progress=progress
        )
        for chosen, pixels in read(windows, what):
            yield member.scorer.look(member.grid, member.seen(pixels), chosen)

    def check_target(self) -> None:
        """Refuse an explanation whose target means something else to these models.

        Raises:
            StampMismatchError: it does.
        """
        shares = zip(self.members[0].scorer.classes, self.target.coefficients, strict=True)
        ours = {name: share for name, share in shares if share}
        theirs = dict(self.explanation.record.get("coefficients") or ours)
        if ours != theirs:
            raise StampMismatchError(
                f"{self.explanation.folder}: its target {self.explanation.target!r} is {theirs}, of"
                f" this run it is {ours}; give the run that was explained"
            )


class Subjects:
    """Explanations that were asked about last, and the runs that were loaded for them."""

    def __init__(self) -> None:
        self._subjects: OrderedDict[Any, Subject] = OrderedDict()
        self._runs: OrderedDict[Any, ReadyRun] = OrderedDict()

    def get(self, explained: Explained, means: Means, say: Callable[[str], None]) -> Subject:
        """An explanation with its models.

        Args:
            explained: which.
            means: what it is answered with.
            say: told what is being done.

        Raises:
            BcosError, PathologyError, ValueError: something is not as it was when the explanation
                was made, or cannot be loaded.
        """
        explanation = load_explanation(explained.folder)
        if explained.record not in (None, record_hash(explanation.record)):
            raise StampMismatchError(
                f"{explained.folder}: another explanation than the one that is shown has taken its"
                " place; start the viewer again"
            )
        key = explained, repr(explanation.record), digest_of_table(explanation)
        found = self._subjects.pop(key, None)
        if found is None:
            while len(self._subjects) >= SUBJECTS:
                self._subjects.popitem(last=False)[1].slide.close()
            found = self._load(explanation, explained, means, say)
        self._subjects[key] = found
        return found

    def _load(
        self,
        explanation: StoredExplanation,
        explained: Explained,
        means: Means,
        say: Callable[[str], None],
    ) -> Subject:
        settings = explanation.settings
        spec = TileSpec.from_dict(settings["tiles"])
        slide = open_slide(explained.slide, tuple(settings["slide_mpp"]), colour=spec.colour)
        if slide.stamp() != settings["slide"]:
            raise StampMismatchError(
                f"{explained.slide}: not the slide that was explained, whose fingerprint is"
                f" {settings['slide'][:16]}; this one's is {slide.stamp()[:16]}"
            )
        subject = Subject(explanation, slide)
        layers = settings.get("layers") or {}
        owns = [settings, *(layers.get("members") or [])]
        runs = []
        for own in owns:
            say("loading the run")
            runs.append(self._run(own, str(settings["depth"]), means))
        count = len(runs) * int(layers.get("jitter", 1))
        tables = _rows(subject.tiles, count, explanation)
        source = GridSource.of(slide)
        for number, rows in enumerate(tables):
            ready = runs[number % len(runs)]
            ready.explainer.check_tiles(spec, str(explanation.folder))
            table = subject.tiles.loc[rows]
            x, y, tissue = (table[name].to_numpy() for name in ("x", "y", "tissue"))
            grid = TileGrid(spec, source, x, y, tissue)
            normalise = _normaliser(ready, means, slide, explanation)
            scorer: Any = ready.explainer.scorer
            subject.members.append(Member(scorer, grid, rows, 1 / count, normalise))
        subject.check_target()
        return subject

    def _run(self, own: Mapping[str, Any], depth: str, means: Means) -> ReadyRun:
        """A run as it was when it explained."""
        checkpoint, pooling = str(own["checkpoint"]), own.get("pooling")
        run = means.runs[checkpoint.removesuffix(RAW)]
        if (now := digest_of(run)) != checkpoint.removesuffix(RAW):
            raise StampMismatchError(
                f"--run {run}: its weights are {now} now, the explanation was made with"
                f" {checkpoint}; explain the slide again"
            )
        numbers = own.get("calibration")
        # Calibrating changes a model, so one that is not has to be another.
        key = checkpoint, pooling, depth, numbers is not None
        found = self._runs.pop(key, None)
        if found is None:
            while len(self._runs) >= MODELS:
                self._runs.popitem(last=False)
            name = run.removesuffix(RAW) + (RAW if checkpoint.endswith(RAW) else "")
            needs_encoder = own.get("encoder") is not None
            found = ready_run(
                name,
                device=means.device,
                calibrated=numbers is not None,
                pooling=pooling,
                depth=depth,
                choice=means.encoder if needs_encoder else None,
            )
        self._runs[key] = found
        got = {**found.explainer.settings, "calibration": found.calibration}
        got = json.loads(json.dumps(got))  # as the record has it
        for what in (*SUMMED, "calibration"):
            if got.get(what) != own.get(what):
                raise StampMismatchError(
                    f"--run {run}: {what} is {got.get(what)}, the explanation was made with"
                    f" {own.get(what)}; explain the slide again"
                )
        return found


def digest_of_table(explanation: StoredExplanation) -> tuple[int, int]:
    """What tells that the table of an explanation was replaced."""
    try:
        stat = (explanation.folder / "tiles.parquet").stat()
    except OSError as error:
        raise ManifestError(f"{explanation.folder}: its tiles.parquet cannot be read") from error
    return stat.st_mtime_ns, stat.st_size


def _rows(
    tiles: pd.DataFrame, count: int, explanation: StoredExplanation
) -> list[NDArray[np.intp]]:
    """The rows of each member's tiles."""
    of = tiles["member"].to_numpy() if "member" in tiles else np.zeros(len(tiles), int)
    tables = [np.flatnonzero(of == number) for number in range(count)]
    if sum(map(len, tables)) != len(tiles) or not all(map(len, tables)):
        raise ManifestError(
            f"{explanation.folder}: tiles.parquet is not the table of {count} members that its"
            " record tells of; explain the slide again"
        )
    return tables


def _normaliser(
    ready: ReadyRun, means: Means, slide: Slide, explanation: StoredExplanation
) -> Tiles | None:
    """The stain normalisation that tiles went through, the same as then."""
    trained, told = ready.explainer.trained, explanation.settings.get("stain")
    if trained.stain is None:
        return None
    profiles = trained.check_stains(means.stains or trained.stains)
    assert profiles is not None
    profile = profiles.profile(explanation.slide_id, slide.stamp(), slide.colour)
    if told is None or told.get("profile") != profile.digest():
        raise StampMismatchError(
            f"{profiles.folder}: the stain profile of slide {explanation.slide_id} is"
            f" {profile.digest()}, the explanation was made with"
            f" {told and told.get('profile')}; give --stains as then, or explain the slide again"
        )
    return partial(profiles.normaliser(), profiles=profile)
