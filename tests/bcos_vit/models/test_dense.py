"""Dense evaluation: a tile's logit is the same in any block, and taken apart exactly."""

import pytest
import torch

from bcos_vit.explain import explain, explain_classes
from bcos_vit.models import BcosConvNeXt, BcosDenseNet, create_model
from bcos_vit.models.dense import CellReadout, Dense
from tests.conftest import settle_statistics, unsettle
from tests.contract.families import FAMILIES

CONVOLUTIONAL = (
    "bcos_resnet18", "bcos_resnet50", "bcos_convnext_tiny", "bcos_densenet121", "bcos_vgg11_bnu",
)  # fmt: skip
HALO = 24


def _settled(network):
    images = torch.rand(2, network.in_chans, 96, 96, dtype=torch.float64)
    return settle_statistics(unsettle(network).double(), images)


def _network():
    """Three halvings, a stride of 8 px, cells that see less than 24 px around their own."""
    return _settled(BcosDenseNet(growth_rate=8, block_config=(2, 1), num_classes=3))


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    dense = Dense(_network())
    assert (dense.stride_px, dense.halo_px) == (8, HALO)
    return dense


def _images(dense, rows, columns, batch=1):
    sides = rows + 2 * dense.halo_px, columns + 2 * dense.halo_px
    return torch.rand(batch, dense.network.in_chans, *sides, dtype=torch.float64)


def _tile(images, dense, y, x, side):
    whole = side + 2 * dense.halo_px
    return images[..., y : y + whole, x : x + whole]


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_each_family_gives_a_tile_the_same_logits_in_any_block(name):
    network = create_model(name, **({"num_classes": 3} | FAMILIES[name].shallow))
    dense = Dense(_settled(network))
    images = _images(dense, 64, 128)
    together = dense.tile_logits(images, 64)
    assert together.shape == (1, 3, 1, 3)  # by cells of 32 px, so the one in between, too
    with torch.no_grad():
        for column in range(3):
            alone = dense(_tile(images, dense, 0, 32 * column, 64))
            # Sums over the same numbers, in float64.
            torch.testing.assert_close(together[:, :, 0, column], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tile_px", [8, 24])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_blocks_of_any_size_agree(dense, side, tile_px):
    images = _images(dense, 3 * tile_px, 3 * tile_px)
    step = dense.cells(tile_px)
    with torch.no_grad():
        whole = dense.tile_logits(images, tile_px)[:, :, ::step, ::step]
        for row in range(4 - side):
            for column in range(4 - side):
                block = _tile(images, dense, row * tile_px, column * tile_px, side * tile_px)
                part = dense.tile_logits(block, tile_px)[:, :, ::step, ::step]
                wanted = whole[:, :, row : row + side, column : column + side]
                torch.testing.assert_close(part, wanted, rtol=0, atol=1e-10)


def test_it_is_another_function_than_the_network_on_tiles(dense):
    images = _images(dense, 16, 16)
    inside = images[..., dense.halo_px : -dense.halo_px, dense.halo_px : -dense.halo_px]
    with torch.no_grad():
        difference = (dense(images) - dense.network(inside)).abs().max()
        agreement = (dense(images) - dense(images.clone())).abs().max()
    assert difference > 1e-3
    assert agreement == 0


def test_a_larger_halo_changes_nothing(dense):
    wider = Dense(dense.network, dense.halo_px + 16)
    images = _images(wider, 16, 16)
    with torch.no_grad():
        got, wanted = wider(images), dense(images[..., 16:-16, 16:-16])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


def test_what_lies_beyond_the_halo_needed_does_not_count(dense):
    # The measured halo is needed: one stride less, and the tile's rim sees the padding.
    images = _images(dense, 16, 16)
    rim = dense.halo_px - dense.stride_px
    with torch.no_grad():
        cells = dense.network.local_evidence(dense.network.forward_features(images))
        cut = images[..., dense.stride_px :, :]
        fewer = dense.network.local_evidence(dense.network.forward_features(cut))
    row = rim // dense.stride_px
    assert (cells[..., row + 1, :] - fewer[..., row, :]).abs().max() > 1e-12
    torch.testing.assert_close(
        cells[..., row + 2 :, :], fewer[..., row + 1 :, :], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize(
    ("halo_px", "got"), [(HALO - 8, HALO - 8), (HALO + 1, HALO + 1), (0, 0), (-HALO, -HALO)]
)
def test_a_halo_that_is_too_small_or_off_the_lattice_is_refused(dense, halo_px, got):
    with pytest.raises(ValueError, match=f"at least {HALO} and a multiple of 8,.*got {got}"):
        Dense(dense.network, halo_px)


def test_images_without_halo_and_odd_tiles_are_refused(dense):
    whole = 16 + 2 * HALO
    with pytest.raises(ValueError, match=f"halo of {HALO} px on each side, got {2 * HALO} x "):
        dense(torch.rand(1, 6, 2 * HALO, whole, dtype=torch.float64))
    with pytest.raises(ValueError, match=f"got {whole} x {whole + 2}"):
        dense(torch.rand(1, 6, whole, whole + 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="multiple of 8 px, got 12"):
        dense.tile_logits(_images(dense, 16, 16), 12)
    with pytest.raises(ValueError, match="tiles of 24 px do not fit into 16 x 16 px"):
        dense.tile_logits(_images(dense, 16, 16), 24)


@pytest.mark.parametrize("depth", ["pixels", "features.denseblock1", "head"])
def test_a_dense_logit_is_taken_apart_exactly_halo_included(dense, depth):
    images = _images(dense, 8, 16, batch=2)
    assert depth in dense.depths()
    explanation = explain(dense, images, target=1, depth=depth)
    assert explanation.completeness_gap.max() < 1e-10
    assert torch.allclose(explanation.bias, dense.logits.bias[1])
    with torch.no_grad():
        torch.testing.assert_close(explanation.logit, dense(images)[:, 1])
    outside = explanation.contributions.clone()
    factor = images.shape[-1] // outside.shape[-1]
    rim = dense.halo_px // factor
    outside[:, rim:-rim, rim:-rim] = 0
    # Pixels of the halo are seen by the tile's cells; local logits there are not counted.
    assert (outside.abs().max() > 0) == (depth != "head")


@pytest.mark.parametrize("depth", ["pixels", "features.norm0", "head"])
def test_a_block_explains_the_weighted_sum_of_its_tiles(dense, depth):
    images = _images(dense, 16, 24, batch=2)
    logits = dense.tile_logits(images, 8).detach()
    counted = torch.rand(2, 2, 2, 3, dtype=torch.float64) - 0.5  # batch, outputs, rows, columns
    counted[1, 1] = 0  # tiles that do not count for a target
    mixed = torch.tensor([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    weights = counted[:, :, None] * mixed[None, :, :, None, None]
    block = CellReadout(dense, weights)
    wanted = torch.einsum("btkrc,bkrc->bt", weights, logits)
    for place, found in enumerate(explain_classes(block, images, depth=depth)):
        torch.testing.assert_close(found.logit, wanted[:, place], rtol=0, atol=1e-10)
        assert found.completeness_gap.max() < 1e-10
        biases = weights[:, place].sum((2, 3)) @ dense.logits.bias
        torch.testing.assert_close(found.bias, biases, rtol=0, atol=1e-12)


def test_contributions_of_a_block_are_the_weighted_sums_of_those_of_tiles(dense):
    images = _images(dense, 8, 16)
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64)
    weights = torch.zeros(1, 1, 3, 1, 2, dtype=torch.float64)
    weights[0, 0, 2, 0] = shares
    block = explain(CellReadout(dense, weights), images, target=0).contributions[0]
    parts = torch.zeros_like(block)
    for column, share in enumerate(shares):
        tile = _tile(images, dense, 0, 8 * column, 8)
        found = explain(dense, tile, target=2).contributions[0]
        parts[: tile.shape[2], 8 * column : 8 * column + tile.shape[3]] += share * found
    torch.testing.assert_close(block, parts, rtol=0, atol=1e-12)


def test_temperatures_of_each_class_count():
    network = _network()
    network.logits.rescale([2.0, 3.0, 0.5], [0.1, 0.2, 0.3])
    calibrated = Dense(network)
    images = _images(calibrated, 8, 8)
    weights = torch.zeros(1, 3, 3, 1, 1, dtype=torch.float64)
    weights[0, range(3), range(3)] = 1
    with torch.no_grad():
        torch.testing.assert_close(CellReadout(calibrated, weights)(images), calibrated(images))


def test_a_conventional_network_has_a_dense_logit_too():
    network = BcosConvNeXt(
        depths=(1, 1), dims=(8, 16), in_chans=3, num_classes=3, conventional=True
    )
    dense = Dense(unsettle(network).double().eval())
    images = _images(dense, 16, 8)
    with torch.no_grad():
        together = dense.tile_logits(images, 8)
        alone = dense(images[..., 8:, :])
    torch.testing.assert_close(together[:, :, 1, 0], alone, rtol=0, atol=1e-10)


def test_weights_must_be_of_the_images(dense):
    with pytest.raises(ValueError, match=r"\(batch, outputs, classes, rows, columns\), got \(1,"):
        CellReadout(dense, torch.ones(1, 2, 2))
    block = CellReadout(dense, torch.ones(1, 1, 3, 2, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="weights are for images of"):
        block(_images(dense, 8, 8))
