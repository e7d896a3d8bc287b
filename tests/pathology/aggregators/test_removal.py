"""Effects of removing and adding tiles: closed forms against the aggregator run on each bag."""

from itertools import combinations
from math import comb

import pytest
import torch

from pathology.aggregators import AGGREGATORS
from pathology.aggregators.explain import explain_bag
from pathology.aggregators.removal import (
    addition_effects,
    closed_removal_effects,
    greedy_addition,
    greedy_removal,
    removal_effects,
    set_removal_effects,
)
from tests.pathology.aggregators.cases import EXACT, EXACT_CASES, bag, case_name, make

CLOSED = {
    "bcos_mean", "bcos_top", "bcos_attention", "bcos_pooled", "bcos_gated_sum", "abmil",
    "abmil_linear", "clam", "mean",
}  # fmt: skip
CASES = EXACT_CASES + [(name, {}) for name in AGGREGATORS if name not in EXACT]
ORDERED = {"transmil"}
every = pytest.mark.parametrize("case", CASES, ids=case_name)
closed = pytest.mark.parametrize("case", [c for c in CASES if c[0] in CLOSED], ids=case_name)


@torch.no_grad()
def run(model, tiles, target=1):
    """The logit of a bag of these tiles alone, without padding."""
    return float(model(tiles[None])[0, target])


def without(tiles, i):
    return torch.cat([tiles[:i], tiles[i + 1 :]])


@every
def test_removal_is_the_bag_without_the_tile(case):
    model, tiles = make(case[0], **case[1]), bag(30)
    found = removal_effects(model, tiles, 1)
    logit = run(model, tiles)
    expected = [logit - run(model, without(tiles, i)) for i in range(30)]
    torch.testing.assert_close(found.effects.tolist(), expected, rtol=0, atol=1e-12)
    assert abs(found.logit - logit) <= 1e-12
    assert found.closed_form == (case[0] in CLOSED)


@closed
def test_removal_from_a_long_bag(case):
    model, tiles = make(case[0], **case[1]), bag(200)
    found = removal_effects(model, tiles, 1)
    logit = run(model, tiles)
    for i in range(0, 200, 7):
        assert abs(float(found.effects[i]) - (logit - run(model, without(tiles, i)))) <= 1e-12


@pytest.mark.parametrize("name", [*sorted(CLOSED), "additive"])
def test_effects_in_float32_are_as_fine_as_in_float64(name):
    """Of many tiles each matters little: rounding of the logit would make ties of them."""
    model, tiles = make(name), bag(500)
    exact = removal_effects(model, tiles, 1).effects
    found = removal_effects(model.float(), tiles.float(), 1).effects
    # Scores are made in float32, to 1e-7 of a tile's weight; one logit's rounding would be 1e-4.
    assert float((found - exact).abs().max()) < 1e-5 * float(exact.abs().max())


def test_only_closed_forms_are_given_as_such():
    for case in CASES:
        found = closed_removal_effects(make(case[0], **case[1]), bag(5), 1)
        assert (found is not None) == (case[0] in CLOSED)


@closed
def test_closed_forms_in_float32_are_the_aggregators_numbers(case):
    """Local logits are float32, 6e-8 each; what is summed of them is float64."""
    model, tiles = make(case[0], dtype=torch.float32, **case[1]), bag(20, dtype=torch.float32)
    found = removal_effects(model, tiles, 1)
    logit = run(model, tiles)
    expected = [logit - run(model, without(tiles, i)) for i in range(20)]
    torch.testing.assert_close(found.effects.tolist(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["bcos_attention", "bcos_pooled"])
@pytest.mark.parametrize("sharpness", [80.0, 300.0])
def test_removal_of_a_tile_that_outweighs_all_others(name, sharpness):
    """What is left has a share of 1e-9, or of nothing that float64 could subtract."""
    model, tiles = make(name), bag(12)
    with torch.no_grad():
        model.scorer.out_weight.mul_(sharpness)
    assert float(model.attention(tiles[None]).detach().max()) > 0.9
    found = removal_effects(model, tiles, 1)
    expected = [run(model, tiles) - run(model, without(tiles, i)) for i in range(12)]
    torch.testing.assert_close(found.effects.tolist(), expected, rtol=0, atol=1e-12)
    order = greedy_removal(model, tiles, 1)
    for rounds in range(12):
        left = torch.ones(12, dtype=torch.bool)
        left[order.tiles[:rounds]] = False
        assert abs(float(order.logits[rounds]) - run(model, tiles[left])) <= 1e-12


@every
def test_removal_of_sets(case):
    model, tiles = make(case[0], **case[1]), bag(15)
    sets = torch.rand(10, 15) < 0.4
    sets[0], sets[1] = False, True
    found = set_removal_effects(model, tiles, sets, 1)
    logit = run(model, tiles)
    for effect, without in zip(found.effects.tolist(), ~sets, strict=True):
        assert abs(effect - (logit - run(model, tiles[without]))) <= 1e-12
    assert abs(float(found.effects[0])) <= 1e-12


@every
def test_adding_tiles(case):
    if case[0] in ORDERED:
        pytest.skip("goes by the order of tiles, of which those to add have none")
    model, tiles, others = make(case[0], **case[1]), bag(10), bag(6)
    found = addition_effects(model, tiles, others, 1)
    logit = run(model, tiles)
    expected = [run(model, torch.cat([tiles, other[None]])) - logit for other in others]
    torch.testing.assert_close(found.effects.tolist(), expected, rtol=0, atol=1e-12)


@every
def test_a_tile_added_to_nothing_is_a_bag_of_one(case):
    model, others = make(case[0], **case[1]), bag(4)
    nothing = run(model, others[:0])
    found = addition_effects(model, others[:0], others, 1)
    expected = [run(model, other[None]) - nothing for other in others]
    torch.testing.assert_close(found.effects.tolist(), expected, rtol=0, atol=1e-12)
    alone = removal_effects(model, others[:1], 1)
    torch.testing.assert_close(alone.effects.tolist(), expected[:1], rtol=0, atol=1e-12)
    assert removal_effects(model, others[:0], 1).logit == pytest.approx(nothing, abs=1e-12)


@pytest.mark.parametrize(
    "case", [*(c for c in CASES if c[0] in CLOSED), ("bcos_transformer", {})], ids=case_name
)
def test_greedy_search_tries_every_tile_in_every_round(case):
    model, tiles = make(case[0], **case[1]), bag(9)
    down, up = greedy_removal(model, tiles, 1, 4), greedy_addition(model, tiles, 1, 4)
    left, built = list(range(9)), []
    for rounds in range(4):
        assert abs(float(down.logits[rounds]) - run(model, tiles[left])) <= 1e-12
        assert abs(float(up.logits[rounds]) - run(model, tiles[built])) <= 1e-12
        lowest = min(run(model, tiles[[k for k in left if k != i]]) for i in left)
        highest = max(run(model, tiles[[*built, i]]) for i in range(9) if i not in built)
        assert abs(float(down.logits[rounds + 1]) - lowest) <= 1e-12
        assert abs(float(up.logits[rounds + 1]) - highest) <= 1e-12
        left.remove(int(down.tiles[rounds]))
        built.append(int(up.tiles[rounds]))
    assert len(down.tiles) == len(up.tiles) == 4


def test_greedy_search_stops_at_a_threshold_or_when_nothing_is_left():
    model, tiles = make("bcos_gated_sum"), bag(8)
    whole = greedy_removal(model, tiles, 1)
    assert sorted(whole.tiles.tolist()) == list(range(8))
    assert float(whole.logits[-1]) == pytest.approx(-2.5, abs=1e-12)
    lowest = float(whole.logits.min())
    assert lowest < float(whole.logits[0])
    until = (lowest + float(whole.logits[0])) / 2
    found = greedy_removal(model, tiles, 1, until=until)
    assert float(found.logits[-1]) <= until < float(found.logits[-2])
    assert found.tiles.tolist() == whole.tiles[: len(found.tiles)].tolist()
    assert len(greedy_removal(model, tiles, 1, 0).tiles) == 0
    assert len(greedy_addition(model, tiles, 1, until=-100.0).tiles) == 0


def test_gated_sum_contribution_is_removal_effect_is_shapley_value():
    for options in ({}, {"per_class": True}, {"expected_tiles": 6.0}):
        model, tiles = make("bcos_gated_sum", **options), bag(6)
        found = explain_bag(model, tiles, 1)
        removed = removal_effects(model, tiles, 1).effects
        torch.testing.assert_close(removed, found.contributions, rtol=0, atol=1e-12)
        shapley = []
        for i in range(6):
            others = [k for k in range(6) if k != i]
            value = 0.0
            for size in range(6):
                for chosen in combinations(others, size):
                    gain = run(model, tiles[[*chosen, i]]) - run(model, tiles[list(chosen)])
                    value += gain / (6 * comb(5, size))
            shapley.append(value)
        torch.testing.assert_close(found.contributions.tolist(), shapley, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["bcos_attention", "bcos_pooled", "bcos_transformer"])
def test_where_tiles_share_attention_contribution_is_not_removal_effect(name):
    model, tiles = make(name), bag(20)
    removed = removal_effects(model, tiles, 1).effects
    apart = (explain_bag(model, tiles, 1).contributions - removed).abs().max()
    assert float(apart) > 0.01 * float(removed.abs().max())


def test_progress_sees_forward_passes():
    seen = []

    def progress(steps, total, what):
        seen.append((total, what))
        return steps

    model, tiles = make("bcos_transformer"), bag(5)
    removal_effects(model, tiles, 1, progress=progress)
    assert seen == [(1, "running subsets"), (1, "running subsets")]
    seen.clear()
    greedy_removal(model, tiles, 1, 3, progress=progress)
    assert seen == [(3, "searching")]


def test_the_callers_contexts_do_not_matter():
    model, tiles = make("bcos_pooled", dtype=torch.float32), bag(dtype=torch.float32)
    expected = removal_effects(model, tiles, 1).effects
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found = removal_effects(model, tiles, 1).effects
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not expected.requires_grad


def test_what_cannot_be_asked_is_refused():
    model, tiles = make("bcos_mean"), bag()
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\)"):
        removal_effects(model, tiles, 5)
    with pytest.raises(ValueError, match=r"features must be \(tiles, 12\)"):
        removal_effects(model, tiles[:, :3], 0)
    with pytest.raises(ValueError, match="call eval"):
        removal_effects(model.train(), tiles, 0)
    model.eval()
    with pytest.raises(TypeError, match="sets must be bool"):
        set_removal_effects(model, tiles, torch.zeros(2, 20), 0)
    with pytest.raises(ValueError, match=r"sets must be \(sets, 20\)"):
        set_removal_effects(model, tiles, torch.zeros(20, dtype=torch.bool), 0)
    with pytest.raises(ValueError, match="rounds must be"):
        greedy_removal(model, tiles, 0, -1)


@every
def test_calibrated_logits_are_as_exact(case):
    model, tiles = make(case[0], **case[1]), bag(10)
    before, effects = run(model, tiles), removal_effects(model, tiles, 1).effects
    summed = case[0] in EXACT or case[0] == "additive"
    explained = explain_bag(model, tiles, 1) if summed else None
    model.rescale([0.5, 4.0, 1.25], [0.1, 0.0, 0.3])
    model.rescale([1.0, 0.5, 1.0], [0.0, -0.2, 0.0])
    assert run(model, tiles) == pytest.approx(before / 2 - 0.2, abs=1e-7)  # a float32 shift
    found = removal_effects(model, tiles, 1)
    torch.testing.assert_close(found.effects, effects / 2, rtol=0, atol=1e-12)
    assert found.logit == pytest.approx(run(model, tiles), abs=1e-12)
    if explained is not None:
        again = explain_bag(model, tiles, 1)
        half = explained.contributions / 2
        torch.testing.assert_close(again.contributions, half, rtol=0, atol=1e-12)
        assert again.bias == pytest.approx(explained.bias / 2 - 0.2, abs=1e-7)
        assert again.completeness_gap <= 1e-12
