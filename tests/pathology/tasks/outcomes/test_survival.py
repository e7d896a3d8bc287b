"""Cox and hazards against explicit loops."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from pathology.errors import ManifestError
from pathology.tasks.outcomes import Cox, Hazard


def cox_by_loops(risk, time, event, ties):
    """Negative log partial likelihood per event, term by term."""
    total, events = 0.0, 0
    for t in sorted({x for x, e in zip(time, event, strict=True) if e}):
        died = [i for i in range(len(time)) if event[i] and time[i] == t]
        at_risk = sum(math.exp(risk[i]) for i in range(len(time)) if time[i] >= t)
        of_died = sum(math.exp(risk[i]) for i in died)
        for order, i in enumerate(died):
            away = order / len(died) * of_died if ties == "efron" else 0.0
            total += risk[i] - math.log(at_risk - away)
            events += 1
    return -total / events


@pytest.fixture
def cohort(rng):
    """Many ties, also of events with the censored."""
    time = torch.tensor(rng.integers(1, 8, 40).astype(np.float64))
    event = torch.tensor((rng.random(40) < 0.6).astype(np.float64))
    return {"time": time, "event": event}


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_is_the_partial_likelihood(ties, cohort):
    risk = torch.randn(40, 1, dtype=torch.float64)
    loss = float(Cox(ties).loss(risk, cohort))
    time, event = (cohort[name].tolist() for name in ("time", "event"))
    wanted = cox_by_loops(risk[:, 0].tolist(), time, event, ties)
    assert loss == pytest.approx(wanted, rel=1e-12)


def test_ways_with_ties_agree_without_any(cohort):
    time = torch.arange(1.0, 41.0)
    risk = torch.randn(40, 1, dtype=torch.float64)
    truth = cohort | {"time": time}
    efron, breslow = (float(Cox(ties).loss(risk, truth)) for ties in ("efron", "breslow"))
    assert efron == pytest.approx(breslow, rel=1e-12)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_has_the_gradient_of_its_value(ties, cohort):
    risk = torch.randn(12, 1, dtype=torch.float64, requires_grad=True)
    truth = {name: values[:12] for name, values in cohort.items()}
    assert torch.autograd.gradcheck(lambda x: Cox(ties).loss(x, truth), (risk,))


def test_large_risks_do_not_overflow(cohort):
    risk = torch.randn(40, 1, dtype=torch.float32) * 1e3
    risk.requires_grad_()
    loss = Cox().loss(risk, cohort)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(risk.grad).all()


def test_a_batch_without_events_teaches_nothing():
    risk = torch.randn(5, 1, requires_grad=True)
    loss = Cox().loss(risk, {"time": torch.arange(1.0, 6.0), "event": torch.zeros(5)})
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(risk.grad, torch.zeros(5, 1))


def test_a_single_event_alone_has_nobody_to_be_compared_with():
    risk = torch.randn(1, 1, requires_grad=True)
    loss = Cox().loss(risk, {"time": torch.ones(1), "event": torch.ones(1)})
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-7)
    assert float(risk.grad.abs().max()) == pytest.approx(0.0, abs=1e-7)


def index_by_pairs(risk, time, event):
    right = pairs = 0.0
    for i, j in itertools.permutations(range(len(time)), 2):
        if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
            pairs += 1
            right += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return right / pairs


def test_concordance_counts_comparable_pairs(cohort, rng):
    risk = torch.tensor(rng.integers(0, 5, 40).astype(np.float64))[:, None]
    found = Cox().measure(risk, cohort)["c_index"]
    wanted = index_by_pairs(risk[:, 0].tolist(), cohort["time"].tolist(), cohort["event"].tolist())
    assert found == pytest.approx(wanted, rel=1e-12)


# --- hazards --------------------------------------------------------------------------------------


def frame(time, event):
    return pd.DataFrame({"time": np.asarray(time, float), "event": np.asarray(event, float)})


@pytest.fixture
def hazard():
    outcome = Hazard(3)
    outcome.fit(frame([1, 2, 3, 4, 5, 6, 9], [1, 1, 1, 1, 1, 1, 0]))
    return outcome


def test_intervals_hold_equally_many_events(hazard):
    events = torch.arange(1.0, 7.0)
    assert torch.bincount(hazard.interval(events)).tolist() == [2, 2, 2]
    # The censored one at 9 does not count, and a time on a cut begins an interval.
    assert hazard.interval(hazard.cuts).tolist() == [1, 2]
    assert hazard.interval(torch.tensor([1e-9, 1e9])).tolist() == [0, 2]


def test_hazards_are_the_likelihood(hazard, cohort):
    logits = torch.randn(40, 3, dtype=torch.float64)
    h = torch.sigmoid(logits).numpy()
    cuts = hazard.cuts.tolist()
    total = 0.0
    for row, t, e in zip(h, cohort["time"].tolist(), cohort["event"].tolist(), strict=True):
        k = sum(t >= cut for cut in cuts)
        total += sum(math.log(1 - row[j]) for j in range(k))
        if e:
            total += math.log(row[k])
    assert float(hazard.loss(logits, cohort)) == pytest.approx(-total / 40, rel=1e-12)


def test_risk_is_minus_the_expected_survival(hazard):
    logits = torch.randn(7, 3, dtype=torch.float64)
    h = torch.sigmoid(logits).numpy()
    survival = np.cumprod(1 - h, axis=1)
    assert np.allclose(hazard.survival(logits).numpy(), survival, rtol=1e-12)
    # The expected number of whole intervals survived, by its distribution.
    number = [
        sum(k * (row[k] if k < 3 else 1.0) * np.prod(1 - row[:k]) for k in range(4)) for row in h
    ]
    assert np.allclose(hazard.scores(logits).numpy(), -np.array(number), rtol=1e-12)


def test_intervals_travel_with_the_weights(hazard):
    other = Hazard(3)
    with pytest.raises(ValueError, match="not known yet"):
        other.loss(torch.zeros(1, 3), {"time": torch.ones(1), "event": torch.ones(1)})
    other.load_state_dict(hazard.state_dict())
    assert torch.equal(other.cuts, hazard.cuts)
    assert other.meaning(0).startswith("logit of the hazard from time 0 to 2.6")
    assert other.meaning(2).endswith(f"from time {float(hazard.cuts[1]):g}")


@pytest.mark.parametrize(
    ("time", "event"),
    [([1, 2, 3], [1, 1, 0]), ([5, 5, 5, 5], [1, 1, 1, 1]), ([1, 2, 3], [0, 0, 0])],
)
def test_too_few_events_do_not_make_intervals(time, event):
    with pytest.raises(ManifestError, match="do not fill 3 intervals"):
        Hazard(3).fit(frame(time, event))


def test_a_censored_bag_says_nothing_of_its_own_interval(hazard):
    logits = torch.zeros(1, 3, requires_grad=True)
    truth = {"time": torch.tensor([3.0]), "event": torch.zeros(1)}
    hazard.loss(logits, truth).backward()
    assert (logits.grad != 0).tolist() == [[True, False, False]]
