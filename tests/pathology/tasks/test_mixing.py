"""Mixup and CutMix against their formulas."""

import pytest
import torch

from pathology.tasks.mixing import Mixing


@pytest.fixture
def batch():
    """Tiles of one grey each, so that a pixel tells where it is from."""
    greys = torch.arange(8) * 32
    images = greys[:, None, None, None].expand(8, 3, 16, 20).to(torch.uint8)
    return images, torch.eye(8)


def mixed(mixing, batch, seed):
    torch.manual_seed(seed)
    return mixing(*batch)


def test_mixup_shares_pixels_and_labels_alike(batch):
    shares = []
    for seed in range(200):
        images, labels = mixed(Mixing(mixup=0.4), batch, seed)
        assert torch.allclose(labels.sum(1), torch.ones(8))
        greys = labels @ (torch.arange(8) * 32 / 255)
        assert torch.allclose(images, greys[:, None, None, None].expand_as(images), atol=1e-6)
        shares.append(float(labels.diagonal().min()))
    # Beta(0.4, 0.4) has a mean of 1/2 and a deviation of 0.37; no image's own share is the
    # minimum only where it is its own partner. Four deviations of a mean of 200.
    assert abs(sum(shares) / 200 - 0.5) < 4 * 0.3727 / 200**0.5


def test_cutmix_cuts_a_rectangle_whose_area_is_the_share_of_the_label(batch):
    for seed in range(100):
        images, labels = mixed(Mixing(cutmix=1.0), batch, seed)
        assert torch.allclose(labels.sum(1), torch.ones(8))
        own = (images * 255 - torch.arange(8)[:, None, None, None] * 32).abs() < 0.5
        for i in range(8):
            inside = ~own[i, 0]
            # The other image is where this one is not, in one rectangle.
            rectangle = inside.any(1)[:, None] & inside.any(0)
            assert torch.equal(inside, rectangle)
            assert labels[i, i].item() == pytest.approx(own[i, 0].float().mean().item(), abs=1e-6)


def test_with_both_half_of_the_batches_get_each(batch):
    cuts = 0
    for seed in range(200):
        images, _ = mixed(Mixing(mixup=1.0, cutmix=1.0), batch, seed)
        whole = (images == images[:, :, :1, :1]).flatten(1).all(1)
        cuts += not whole.all()
    # A cut may be of nothing or of all; four deviations of a binomial about 100.
    assert 65 < cuts < 128


def test_several_labels_are_shared_too(batch):
    labels = torch.ones(8, 2)
    labels[:4, 1] = 0
    _, found = mixed(Mixing(mixup=1.0), (batch[0], labels), 1)
    assert torch.allclose(found[:, 0], torch.ones(8))
    assert ((found[:, 1] > 0) & (found[:, 1] < 1)).any()


def test_a_batch_is_left_alone_and_drawn_by_the_global_seed(batch):
    before = batch[0].clone()
    one, again, other = (mixed(Mixing(0.4, 1.0), batch, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(batch[0], before)


def test_nothing_to_mix_is_left_as_it_is(batch):
    assert not Mixing()
    images, labels = Mixing(mixup=1.0)(batch[0][:1], batch[1][:1])
    assert torch.equal(images, batch[0][:1] / 255)
    assert torch.equal(labels, batch[1][:1])


@pytest.mark.parametrize("options", [{"mixup": -0.1}, {"cutmix": float("nan")}])
def test_shares_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match="mixup and cutmix must be at least 0"):
        Mixing(**options)
