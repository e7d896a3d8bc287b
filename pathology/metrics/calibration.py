"""Temperatures that make probabilities what they say, fitted on validation.

A temperature divides a class's evidence, and with it every contribution; the logit bias, which is
the same whatever the image, stays. The map of a calibrated model is as exact as before.

Source: Guo et al., ICML 2017, arXiv:1706.04599 (temperature scaling); with a shift, Platt, 1999.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_expit, logsumexp, softmax
from torch import Tensor, nn

from bcos_vit.layers import Logits
from pathology.errors import ManifestError, StampMismatchError
from pathology.metrics.predictions import Link, Predictions
from pathology.outputs import complete_file

Objective = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]

FILE = "calibration.json"
COMPARED = ("nll", "ece", "brier", "balanced_accuracy")
"""Measures that are told before and after."""
WIDEST = 1e3
"""Temperatures are looked for between 1 / ``WIDEST`` and ``WIDEST``."""


@dataclass(frozen=True)
class Calibration:
    """What is done to logits, and what it was fitted on.

    Args:
        classes: in the order of the logits.
        link: from logits to probabilities.
        temperatures: per class; all the same after a softmax.
        shifts: added to each logit after its division; what the division took from the bias.
        thresholds: probability per class, after calibration, from which on an example counts as of
            the class.
        rule: how the thresholds were chosen.
        checkpoint: hash of the weights that it is of.
        split: what it was fitted on.
        digest: of the data.
        examples: how many.
        before: NLL, ECE, Brier score and balanced accuracy there.
        after: the same after calibration.
        unfitted: why a class keeps its temperature of 1.
    """

    classes: Sequence[str]
    link: Link
    temperatures: Sequence[float]
    shifts: Sequence[float]
    thresholds: Mapping[str, float]
    rule: str
    checkpoint: str
    split: str
    digest: str
    examples: int
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)
    unfitted: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        with complete_file(path) as draft:
            draft.write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, path: Path, checkpoint: str, classes: Sequence[str]) -> Self:
        """Read it back.

        Args:
            path: file that `pathology calibrate` wrote.
            checkpoint: hash of the weights that it must be of.
            classes: of the model.

        Raises:
            ManifestError: there is none, or it cannot be read.
            StampMismatchError: it is of other weights or classes.
        """
        try:
            calibration = cls(**json.loads(path.read_text()))
        except OSError:
            raise ManifestError(
                f"{path}: no calibration; run `pathology calibrate` first"
            ) from None
        except (TypeError, ValueError) as error:
            raise ManifestError(
                f"{path}: not a calibration ({error}); run `pathology calibrate` again"
            ) from error
        if calibration.checkpoint != checkpoint or list(calibration.classes) != list(classes):
            raise StampMismatchError(
                f"{path}: is of checkpoint {calibration.checkpoint}, the run's is {checkpoint};"
                " run `pathology calibrate` again"
            )
        return calibration

    def numbers(self) -> dict[str, dict[str, float]]:
        """What it does to the logit of each class."""
        return {
            "temperature": dict(zip(self.classes, self.temperatures, strict=True)),
            "shift": dict(zip(self.classes, self.shifts, strict=True)),
        }

    def is_of(self, digest: str, split: str) -> bool:
        """Whether it was fitted on some of these very examples."""
        return self.digest == digest and (split == "all" or self.split in (split, "all"))

    def applied(self, predictions: Predictions) -> Predictions:
        """Predictions as the calibrated model makes them."""
        return predictions.rescaled(np.array(self.temperatures), np.array(self.shifts))


@dataclass(frozen=True)
class Fit:
    """Temperatures and shifts per class, and why some were left alone."""

    temperatures: NDArray[np.float64]
    shifts: NDArray[np.float64]
    unfitted: dict[str, str]


def fit(
    predictions: Predictions,
    biases: Sequence[float] | None = None,
    *,
    shift: bool = False,
    shared: bool = False,
) -> Fit:
    """The temperatures of the smallest NLL, in float64.

    Of classes with probabilities of their own (sigmoid) one temperature each, which divides the
    evidence and leaves the bias: ``logit = evidence / temperature + bias``. After a softmax classes
    share one, since each probability is of all logits; it divides these as a whole, as a
    temperature ``shared`` on request does. In ``1 / temperature`` (and the shift) the NLL is
    convex. A class keeps its temperature of 1 where there is no smallest one: its examples are told
    apart without an error, so that any sharpening pays, or they are told no better than by chance,
    so that any flattening does.

    Args:
        predictions: of ``classes`` or ``labels``, on validation.
        biases: of the logits, see :func:`logit_biases`; 0 when omitted.
        shift: fit a shift per class, too. It is one more constant of the logit, as its bias is.
        shared: one temperature for all classes. It leaves the order of a tile's classes as it is;
            temperatures of their own, or shifts, may change which is predicted.

    Raises:
        ValueError: another outcome; ``shared`` with ``shift``.
    """
    if shared and shift:
        raise ValueError("shifts are per class: give either shared or shift")
    if predictions.outcome not in ("classes", "labels"):
        raise ValueError(
            f"outcome {predictions.outcome} has no temperatures; classes and labels have"
        )
    logits, truth = predictions.logits, predictions.positive.astype(np.float64)
    count = logits.shape[1]
    temperatures, shifts, unfitted = np.ones(count), np.zeros(count), {}
    if predictions.is_independent and shared:
        one = _fit_one(logits.ravel(), truth.ravel(), False)
        if one is None:
            unfitted = dict.fromkeys(predictions.classes, _REASON)
        else:
            temperatures[:] = one[0]
    elif predictions.is_independent:
        for i, name in enumerate(predictions.classes):
            if not 0 < truth[:, i].sum() < len(truth):
                unfitted[name] = "no example of it, or none of another"
                continue
            bias = 0.0 if biases is None else biases[i]
            found = _fit_one(logits[:, i], truth[:, i], shift, bias)
            if found is None:
                unfitted[name] = _REASON
            else:
                temperatures[i], shifts[i] = found
    else:
        together = _fit_shared(logits, truth, shift)
        if together is None:
            unfitted = dict.fromkeys(predictions.classes, _REASON)
        else:
            temperatures[:], shifts = together
    return Fit(temperatures, shifts, unfitted)


_REASON = "told apart without an error, or no better than by chance: no temperature is the best"


def _fit_one(
    logits: NDArray[np.float64], truth: NDArray[np.float64], shift: bool, bias: float = 0.0
) -> tuple[float, float] | None:
    """Temperature and shift of one class by itself."""
    sign = 2 * truth - 1
    evidence = logits - bias

    def nll(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = values[0] * evidence + bias + values[1]
        off = expit(z) - truth
        return -float(log_expit(sign * z).mean()), np.array([off @ evidence, off.sum()]) / len(z)

    found = _minimum(nll, 1, shift)
    if found is None or (sign * (found[0] * evidence + bias + found[1]) > 0).all():
        return None
    # Of the logit as a whole, which holds the bias divided.
    return 1 / found[0], found[1] + bias * (1 - found[0])


def _fit_shared(
    logits: NDArray[np.float64], truth: NDArray[np.float64], shift: bool
) -> tuple[float, NDArray[np.float64]] | None:
    """One temperature of exclusive classes, and their shifts."""

    def nll(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = values[0] * logits + values[1:]
        off = softmax(z, axis=1) - truth
        slope = np.append(float((off * logits).sum()), off.sum(0)) / len(z)
        return float((logsumexp(z, axis=1) - (z * truth).sum(1)).mean()), slope

    found = _minimum(nll, logits.shape[1], shift)
    if found is None:
        return None
    z = found[0] * logits + found[1:]
    if (z.argmax(1) == truth.argmax(1)).all():
        return None
    # Only differences between shifts matter.
    return 1 / found[0], found[1:] - found[1:].mean()


def _minimum(nll: Objective, shifts: int, shift: bool) -> NDArray[np.float64] | None:
    """Sharpness (1 / temperature) and shifts where ``nll`` is least; ``None`` at the bounds."""
    still = np.zeros(shifts)

    def slope(sharpness: float) -> float:
        return float(nll(np.append(sharpness, still))[1][0])

    start = 1.0
    is_between = slope(1 / WIDEST) < 0 < slope(WIDEST)
    if is_between:
        start = float(brentq(slope, 1 / WIDEST, WIDEST, xtol=1e-14, rtol=1e-14, maxiter=500))
    if not shift:
        return np.append(start, still) if is_between else None
    found = minimize(
        nll,
        np.append(start, still),
        jac=True,
        method="L-BFGS-B",
        bounds=[(1 / WIDEST, WIDEST)] + [(None, None)] * shifts,
        options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 2000, "maxfun": 20000},
    ).x
    is_inside = 1 / WIDEST * 1.01 < found[0] < WIDEST * 0.99 and np.isfinite(found).all()
    return np.asarray(found) if is_inside else None


def logit_biases(task: nn.Module, count: int) -> list[float]:
    """The constant of each of ``count`` logits; 0 where a model does not say one.

    Raises:
        ValueError: several ends, of which none is known to be the last.
    """
    end = _end(task, count)
    return [0.0] * count if end is None else [float(one) for one in end.bias]


def _end(task: nn.Module, count: int) -> Logits | None:
    """Where a model makes its ``count`` logits, if that is a layer of its own."""
    ends = [one for one in task.modules() if isinstance(one, Logits) and len(one.bias) == count]
    if len(ends) > 1:
        raise ValueError(f"the model has {len(ends)} ends with logits; calibration needs one")
    return ends[0] if ends else None


def apply_calibration(task: nn.Module, calibration: Calibration) -> None:
    """Make a model return calibrated logits; in place.

    A B-cos model's :class:`Logits` takes temperatures and shifts in, so that an explanation of the
    calibrated model adds up as before, its contributions divided by the class's temperature.
    Logits of a model without one are divided behind it.

    Args:
        task: a task, or a model.
        calibration: of its weights.

    Raises:
        ValueError: several ends, of which none is known to be the last.
    """
    end = _end(task, len(calibration.classes))
    if end is not None:
        end.rescale(calibration.temperatures, calibration.shifts)
        return
    model: Any = getattr(task, "model", task)
    # Of bags, what makes logits of features.
    model = getattr(model, "aggregator", model)
    if hasattr(model, "rescale"):  # its explanations have to know
        model.rescale(calibration.temperatures, calibration.shifts)
    else:
        model.register_forward_hook(_Divide(calibration))


class _Divide:
    """Divides what a conventional model returns; a hook that can be copied with its model."""

    def __init__(self, calibration: Calibration) -> None:
        self.temperatures = list(calibration.temperatures)
        self.shifts = list(calibration.shifts)

    def __call__(self, module: nn.Module, arguments: Any, logits: Tensor) -> Tensor:
        temperatures, shifts = (logits.new_tensor(v) for v in (self.temperatures, self.shifts))
        return logits / temperatures + shifts
