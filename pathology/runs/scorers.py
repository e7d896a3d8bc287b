"""What ``pathology explain`` explains with: a trained run, as the score of a slide."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pathology.errors import ManifestError, StampMismatchError
from pathology.runs.encoder_choice import EncoderChoice

if TYPE_CHECKING:
    from pathology.explain.scorers.scorer import Scorer
    from pathology.runs.trained import Trained
    from pathology.tiling import TileSpec

ONE_NUMBER = {"grades": "grade", "cox": "risk"}
"""What is explained where an outcome has one number, not one per class."""


@dataclass(frozen=True)
class Explainer:
    """A run, ready to explain slides.

    Args:
        scorer: gives slides their scores.
        trained: the run, with the stains that its tiles need.
        settings: what, besides weights and tiles, decides the numbers.
        words: the same for the report.
        tiles: how tiles have to be cut, where a score depends on all of it.
    """

    scorer: "Scorer"
    trained: "Trained"
    settings: dict[str, Any]
    words: dict[str, str]
    tiles: "TileSpec | None" = None

    def check_tiles(self, spec: "TileSpec", where: str) -> None:
        """Refuse tiles of another kind than those trained on.

        Raises:
            StampMismatchError: naming both.
        """
        if self.tiles is None:
            self.trained.check_tiles(spec, where)
        elif spec != self.tiles:
            raise StampMismatchError(
                f"{where}: tiles of {spec}, the model was trained on bags of {self.tiles}; tile the"
                " slides again"
            )


def make_explainer(
    trained: "Trained", pooling: str | None, depth: str, choice: EncoderChoice | None
) -> Explainer:
    """What explains slides by this run.

    Args:
        trained: a run on tiles or slides.
        pooling: of tile logits, for a run on tiles; their mean when omitted.
        depth: where explanations stop.
        choice: what made the features that a run on slides was trained on.

    Raises:
        NotExplainableError: the model is not dynamic-linear as far as ``depth`` asks.
        ManifestError: no encoder is given, and one is needed.
        StampMismatchError: another encoder than the one the run was trained with.
        ValueError: a depth or pooling that there is not, or that the run has no use for.
    """
    if "aggregator" in trained.task.hparams:
        if pooling is not None:
            raise ValueError("--pooling is of tile models; this run's aggregator makes the score")
        return _of_slides(trained, depth, choice)
    if choice is not None:
        raise ValueError("--encoder is for a run on slides; this one is of tiles")
    from pathology.explain.scorers.dense_logits import DenseLogits
    from pathology.explain.scorers.pooled_logits import PooledLogits
    from pathology.explain.scorers.pooling import parse_pooling

    task, pool = trained.task, parse_pooling(pooling or "mean")
    words = {"model": str(task.hparams["model"]), "slide score": f"{pool} of the tile logits"}
    settings: dict[str, Any] = {"pooling": str(pool)}
    scorer: Scorer
    with _named("depth"):
        if task.dense is None:
            scorer = PooledLogits(task.model, task.encoding, task.classes, pool, depth)
        else:
            scorer = DenseLogits(task.dense, task.encoding, task.classes, pool, depth)
            settings["dense_halo_px"] = task.dense.halo_px
            words["evaluation"] = f"dense, each tile with a halo of {task.dense.halo_px} px"
    return Explainer(scorer, trained, settings, words)


def _of_slides(trained: "Trained", depth: str, choice: EncoderChoice | None) -> Explainer:
    """A run on slides: its aggregator, behind an encoder of its own or one that is given."""
    from pathology.explain.scorers.aggregated_features import AggregatedFeatures
    from pathology.tiling import TileSpec

    task = trained.task
    made = task.hparams["bags"] or {}
    settings: dict[str, Any] = {"aggregator": task.hparams["aggregator"]}
    words = {"slide score": f"{task.hparams['aggregator']} of the tiles' features"}
    if task.model.encoder is not None:
        if choice is not None:
            raise ValueError("--encoder: this run was trained with an encoder of its own")
        module, encoding = task.model.encoder, task.model.encoding
        spec = TileSpec.from_dict(made["tiles"])
        trained = replace(trained, stain=made["stain"])
        words["model"] = str(task.hparams["encoder"])
    else:
        from pathology.data.features import FeatureKind

        kind = FeatureKind.from_dict(made["features"])
        if choice is None:
            raise ManifestError(
                f"the run was trained on features of {kind.encoder}; give --encoder (and --weights,"
                " ...) as `pathology features` had it"
            )
        from pathology.runs.chosen_encoder import chosen_encoder

        encoder, _, _ = chosen_encoder(choice, str(next(task.parameters()).device))
        got = replace(
            kind, encoder=encoder.name, weights=encoder.weights, dims=encoder.dims,
            encoding=encoder.encoding,
        )  # fmt: skip
        got.check(f"encoder {choice.name}", kind, "when the run was trained")
        module, encoding, spec = encoder.module, encoder.transform, kind.tiles
        trained = replace(trained, stain=kind.stain)
        settings["encoder"] = encoder.weights
        words["model"] = f"{encoder.name} ({encoder.weights[:16]})"
        # Trained features may be rounded; what is explained is computed anew.
        words["features"] = f"computed anew in float32; trained on {kind.precision}, {kind.stored}"
    with _named("depth"):
        scorer = AggregatedFeatures(module, encoding, task.model.aggregator, _targets(task), depth)
    return Explainer(scorer, trained, settings, words, spec)


def _targets(task: Any) -> list[str]:
    """Names of what the aggregator's outputs argue for."""
    if task.outcome in ONE_NUMBER:
        return [ONE_NUMBER[task.outcome]]
    if task.outcome == "hazard":
        return [f"interval_{k}" for k in range(task.model.aggregator.outputs)]
    return list(task.classes)


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Errors of value are those of an option."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        named = said if said.startswith(f"{option} ") else f"{option}: {said}"
        raise ValueError(f"--{named}") from error
