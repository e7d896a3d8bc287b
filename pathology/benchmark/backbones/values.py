"""What a trained backbone is worth and what it costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bcos_vit.attribution.classifier import Classifier
from pathology.benchmark.backbones.training import training_cost
from pathology.benchmark.memory import peak_mib
from pathology.benchmark.study.rows import Better, Value
from pathology.benchmark.tile_sets import Examples, TileSet
from pathology.benchmark.timing import take_turns
from pathology.errors import ManifestError
from pathology.metrics import Predictions, measure
from pathology.runs.trained import Trained, load_trained

ACCURACY, COST = "accuracy", "cost"

MEASURES: Mapping[str, Better] = {
    "accuracy": "higher",
    "balanced_accuracy": "higher",
    "auroc": "higher",
    "auprc": "higher",
    "ece": "lower",
    "nll": "lower",
}
HEADLINE = ("balanced_accuracy", "auroc", "ece")


def load_classifier(run: Path, device: str = "cpu") -> Classifier:
    """The network of a finished run with its encoding, in eval mode.

    Args:
        run: folder that :func:`pathology.benchmark.backbones.training.train` wrote.
        device: where to; ``auto`` is the GPU if there is one.

    Raises:
        ManifestError, WeightsError: there is no such run or checkpoint.
        ValueError: the device cannot be used.
    """
    return _classifier(load_trained(run, device))


def _classifier(trained: Trained) -> Classifier:
    made = Classifier(trained.task.model, trained.task.encoding)
    return made.eval()


def backbone_values(
    run: Path,
    tile_set: TileSet,
    device: str = "cpu",
    *,
    twin: Path | None = None,
    batch: int = 32,
    seconds: float = 2.0,
    repeats: int = 1000,
    seed: int = 0,
) -> list[Value]:
    """Accuracy and calibration on the test tiles, parameters, speed, memory and cost of training.

    Args:
        run: folder of the run.
        tile_set: that it is measured on.
        device: where.
        twin: run of the other network of the pair; both are timed in turns, so that a machine that
            slows down slows down both.
        batch: tiles at a time.
        seconds: to spend on timing each network, about.
        repeats: bootstrap draws of patients.
        seed: of the draws.

    Raises:
        ManifestError: there is no such run, or it was trained on other classes.
    """
    trained = load_trained(run, device)
    if tuple(trained.task.classes) != tile_set.classes:
        raise ManifestError(
            f"{run}: trained on the classes {', '.join(trained.task.classes)}, {tile_set.name} has"
            f" {', '.join(tile_set.classes)}; measure it on its own tile set"
        )
    classifier = _classifier(trained)
    test = tile_set.split("test")
    logits = predict(classifier, test.images, batch)
    # As it was trained: each logit by itself, or one class among others.
    link = "sigmoid" if getattr(trained.task, "loss_name", None) == "bce" else "softmax"
    values = _accuracy(logits, test, tile_set.classes, link, repeats, seed)
    others = [_classifier(load_trained(twin, device))] if twin else []
    return values + _cost([classifier, *others], test.images[:batch], seconds) + _training(run)


def predict(
    classifier: Classifier, images: NDArray[np.uint8], batch: int = 32
) -> NDArray[np.float64]:
    """Logits ``(n, classes)`` of images ``(n, h, w, 3)``."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            parts.append(classifier(_tensor(images[start : start + batch], classifier)).double())
    found: NDArray[np.float64] = torch.cat(parts).cpu().numpy()
    return found


def _tensor(images: NDArray[np.uint8], classifier: Classifier) -> torch.Tensor:
    device = next(classifier.parameters()).device
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(device).float() / 255


def _accuracy(
    logits: NDArray[np.float64],
    test: Examples,
    classes: tuple[str, ...],
    link: Any,
    repeats: int,
    seed: int,
) -> list[Value]:
    strata = test.columns["stratum"] if "stratum" in test.columns else pd.Series([""] * len(test))
    values = []
    for stratum in ("", *sorted(set(strata) - {""})):
        rows = np.ones(len(test), bool) if not stratum else (strata == stratum).to_numpy()
        truth = pd.DataFrame({"label": [classes[i] for i in test.labels[rows]]})
        groups = np.array(test.patients, dtype=object)[rows]
        predictions = Predictions("classes", classes, logits[rows], truth, groups, link=link)
        found = measure(predictions, repeats=repeats, seed=seed)
        for name, better in MEASURES.items():
            estimate = found[name]
            values.append(
                Value(
                    name,
                    estimate.value,
                    ACCURACY,
                    stratum=stratum,
                    low=estimate.low,
                    high=estimate.high,
                    better=better,
                    headline=name in HEADLINE and not stratum,
                    note=estimate.note,
                )
            )
    return values


def _cost(classifiers: list[Classifier], images: NDArray[np.uint8], seconds: float) -> list[Value]:
    """Of the first, the others taking turns with it."""
    first = classifiers[0]
    device = next(first.parameters()).device
    batch = _tensor(images, first)

    def run_of(classifier: Classifier) -> Any:
        def run() -> None:
            with torch.inference_mode():
                classifier(batch)

        return run

    runs = [run_of(classifier) for classifier in classifiers]
    times = take_turns(runs, seconds * len(runs), device)[0]
    low, median, high = np.quantile(len(images) / np.array(times), [0.25, 0.5, 0.75])
    parameters = sum(p.numel() for p in first.model.parameters())
    where = "cuda" if device.type == "cuda" else f"cpu, threads: {torch.get_num_threads()}"
    spread = f"quartiles of {len(times)} passes of {len(images)} tiles on {where}"
    memory = f"{len(images)} tiles on {device.type}"
    return [
        Value("parameters", float(parameters), COST, better="none"),
        Value("tiles_per_second", float(median), COST, low=float(low), high=float(high),
              unit="1/s", note=spread),
        Value("inference_peak", peak_mib(runs[0], device), COST, unit="MiB", better="lower",
              note=memory),
    ]  # fmt: skip


def _training(run: Path) -> list[Value]:
    cost = training_cost(run)
    nothing = float("nan")
    note, clock = "", "on the clock, whatever else was trained beside it"
    if cost is None:
        note = "nobody measured it"
    elif not cost.is_whole:
        note = "a session was killed, which nobody measured"
    is_known = cost is not None and cost.is_whole
    seconds, cpu = (cost.seconds, cost.cpu_seconds) if cost and is_known else (nothing, nothing)
    peak = cost.peak_mib if cost else nothing
    return [
        Value("training_seconds", seconds, COST, unit="s", better="lower", note=note or clock),
        Value("training_cpu_seconds", cpu, COST, unit="s", better="lower", note=note),
        Value("training_peak", peak, COST, unit="MiB", better="lower",
              note=note or "of the process, its libraries included, without a GPU's"),
    ]  # fmt: skip
