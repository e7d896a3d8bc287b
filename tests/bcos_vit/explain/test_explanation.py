"""An Explanation is frozen numbers that add up, split per image and go to disk whole."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from bcos_vit.explain import Explanation, explain


@pytest.fixture
def explanation():
    return Explanation(
        logits=torch.tensor([[1.0, 5.0], [7.0, 2.0]]),
        target=torch.tensor([1, 0]),
        bias=torch.tensor([0.5, 0.5]),
        weights=torch.ones(2, 6, 1, 2),
        contributions=torch.tensor([[[1.0, 2.0]], [[3.0, 1.0]]]),
        constants={"position": torch.tensor([1.25, 2.0]), "other": torch.tensor([0.0, -1.0])},
        depth="blocks.3",
    )


def test_the_logit_is_that_of_the_target(explanation):
    assert explanation.logit.tolist() == [5, 7]


def test_the_gap_is_what_is_missing_either_way(explanation):
    assert explanation.completeness_gap.tolist() == [0.25, 1.5]


def test_the_gap_is_summed_in_float64():
    parts = torch.full((1, 1000, 1000), 0.1)
    total = parts.double().sum().float()
    one = Explanation(
        logits=total.reshape(1, 1),
        target=torch.tensor([0]),
        bias=torch.zeros(1),
        weights=torch.zeros(1, 6, 1, 1),
        contributions=parts,
    )
    assert one.completeness_gap.dtype == torch.float64
    # The logit itself is rounded to float32: half a unit of 1e5 is 4e-3.
    assert one.completeness_gap.item() < 5e-3


def test_fields_cannot_be_replaced(explanation):
    with pytest.raises(dataclasses.FrozenInstanceError):
        explanation.bias = torch.zeros(2)


def test_one_image_keeps_every_term(explanation):
    one = explanation[1]
    assert one.logit.item() == 7
    assert one.constants["other"].item() == -1
    assert one.contributions.tolist() == [[3, 1]]
    assert one.completeness_gap.item() == 1.5
    assert one.depth == "blocks.3"


def test_a_batch_is_a_sequence_of_images(explanation):
    assert len(explanation) == 2
    assert [each.target.item() for each in explanation] == [1, 0]


@pytest.mark.parametrize("use", [len, list, lambda e: e[0]])
def test_a_single_image_is_no_sequence(explanation, use):
    with pytest.raises(TypeError, match="single image"):
        use(explanation[0])


def test_explanations_can_be_compared_and_kept_in_sets(explanation):
    twin = copy.deepcopy(explanation)
    assert (explanation == twin) in (True, False)
    assert len({explanation, twin}) in (1, 2)


@pytest.mark.parametrize("single", [True, False])
def test_everything_is_saved(tmp_path, explanation, single):
    kept = explanation[0] if single else explanation
    path = tmp_path / "explained.npz"
    kept.save(path)
    with np.load(path) as stored:
        names = {"logits", "target", "bias", "weights", "contributions"}
        assert set(stored) == names | {"constant:position", "constant:other", "depth"}
        assert stored["depth"] == "blocks.3"
        for name in names:
            np.testing.assert_array_equal(stored[name], getattr(kept, name).numpy())
        np.testing.assert_array_equal(
            stored["constant:position"], kept.constants["position"].numpy()
        )


def test_nothing_but_the_file_is_left_and_an_old_one_is_replaced(tmp_path, explanation):
    explanation.save(tmp_path / "explained")
    explanation[0].save(str(tmp_path / "explained"))
    assert [path.name for path in tmp_path.iterdir()] == ["explained"]
    with np.load(tmp_path / "explained") as stored:
        assert stored["target"].shape == ()


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, explanation, monkeypatch):
    path = tmp_path / "explained.npz"
    explanation.save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        explanation[0].save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["explained.npz"]


def test_explanations_in_half_precision_are_saved(tmp_path, tiny_vit, images):
    explanation = explain(tiny_vit.bfloat16(), images.bfloat16(), 1)
    explanation.save(tmp_path / "explained.npz")
    with np.load(tmp_path / "explained.npz") as stored:
        np.testing.assert_array_equal(stored["weights"], explanation.weights.float().numpy())
