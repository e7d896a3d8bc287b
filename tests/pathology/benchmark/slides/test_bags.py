"""Bags of synthetic slides: what is said of tiles is what was rendered."""

import numpy as np
import pytest
import torch

from pathology.benchmark.slides.bags import MIN_TISSUE, BagSpec, make_bags
from pathology.data.encoders import Encoder
from pathology.errors import StampMismatchError

SPEC = BagSpec(size_px=320, tile_px=32, mpp=1.0, tumour=(0.2, 0.4))


class Means(torch.nn.Module):
    """Mean colour, and deviation, of each tile."""

    def forward(self, tiles):
        return torch.cat([tiles.mean((2, 3)), tiles.std((2, 3))], dim=1)


def encoder(size_px=None):
    return Encoder("means", Means(), lambda tiles: tiles.float(), 6, "hash", "as they are", size_px)


def make(out, names, seed=0, spec=SPEC, **options):
    return make_bags(
        spec, encoder(**options), names, out, seed=seed, device=torch.device("cpu"),
        progress=lambda steps, total, what: steps,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("bags")
    return out, make(out, {"a": True, "b": False})


def test_what_a_bag_holds(made):
    _, bags = made
    for name, has_lesion in (("a", True), ("b", False)):
        bag = bags[name]
        count = len(bag.features)
        assert bag.features.shape == (count, 6)
        assert bag.tumour.shape == (count,)
        assert bag.corners.shape == (count, 2)
        assert (bag.corners % 32 == 0).all()
        assert len(np.unique(bag.corners, axis=0)) == count
        assert bag.label == int(has_lesion) == int(bag.lesion_raster.any())
        assert (bag.lesion == (bag.tumour >= SPEC.lesion_share)).all()
    assert bags["b"].tumour.max() == 0


def test_tiles_are_those_of_the_slide(made, monkeypatch):
    """The last rendering, cut by hand."""
    from pathology.benchmark.slides import bags as module

    seen = []

    def spy(*arguments):
        seen.append(module_render(*arguments))
        return seen[-1]

    module_render = module.render
    monkeypatch.setattr(module, "render", spy)
    out, _ = made
    bag = make(out / "again", {"a": True})["a"]
    part = seen[-1]
    kept = 0
    for y in range(0, 320, 32):
        for x in range(0, 320, 32):
            cut = slice(y, y + 32), slice(x, x + 32)
            regions = part.regions[cut]
            if (regions > 0).mean() < MIN_TISSUE:
                continue
            assert bag.corners[kept].tolist() == [x, y]
            assert bag.tumour[kept] == pytest.approx((regions == 2).mean())
            colour = part.rgb[cut].reshape(-1, 3).mean(0)
            assert bag.features[kept, :3].tolist() == pytest.approx(colour, abs=1e-3)
            kept += 1
    assert kept == len(bag.features)
    # The raster of lesions, by the middle of one of its squares.
    row, column = np.argwhere(bag.lesion_raster)[0]
    at = (np.array([row, column]) + 0.5) * bag.raster_um / bag.mpp
    assert part.regions[tuple(at.astype(int))] == 2


def test_kept_as_it_was_made_and_by_seed(made):
    out, bags = made
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    again = make(out, {"a": True, "b": False})
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.npz")} == stamps
    assert torch.equal(again["a"].features, bags["a"].features)
    other = make(out / "other", {"b": False}, seed=1)["b"]
    assert other.features.shape != bags["b"].features.shape or not torch.equal(
        other.features, bags["b"].features
    )


def test_what_is_refused(tmp_path, monkeypatch):
    with pytest.raises(StampMismatchError, match="32 px"):
        make(tmp_path, {"a": True}, size_px=64)
    monkeypatch.setattr("pathology.benchmark.slides.bags._DRAWS", 2)
    tiny = BagSpec(size_px=128, tile_px=64, tumour=(1e-4, 1e-4), lesion_share=1.0)
    with pytest.raises(ValueError, match="larger slides"):
        make(tmp_path, {"a": True}, spec=tiny)
    for change in (
        {"size_px": 32, "tile_px": 64},
        {"tumour": (0.2, 0.1)},
        {"tumour": (0.0, 0.1)},
        {"lesion_share": 0.0},
        {"mpp": 9.0},
    ):
        with pytest.raises(ValueError, match="must be"):
            BagSpec(**change)
