import itertools
import resource
import signal
import threading

import numpy as np
import pytest

from pathology.errors import OutputError
from pathology.explain.stitching.spool import Spool
from pathology.explain.stitching.stitch import Stitcher
from pathology.geometry import Box, Mpp, Size

SIZE, LARGEST = Size(300.0, 400.0), Size(64.0, 64.0)


def mixed_tiles(rng, count):
    """Tiles and windows, fine and coarse, float32 and float64, some at one place."""
    tiles = []
    for i in range(count):
        x, y = rng.integers(-2, 10, 2) * 32.0
        cells = rng.standard_normal((1, 1) if i % 3 == 0 else (5, 7))
        covers = None if i % 4 else [(Box(x + 8, y + 8, 32.0, 40.0), rng.uniform(0, 2))]
        number = np.float32 if i % 2 else np.float64
        tiles.append((Box(x, y, 64.0, 64.0), cells.astype(number), rng.uniform(0, 2), covers))
    # Two with one place and weight, and two that are the same through and through.
    box, cells = Box(96.0, 128.0, 64.0, 64.0), rng.standard_normal((2, 3))
    return [*tiles, (box, cells, 1.0, None), (box, -cells, 1.0, None), (box, cells, 1.0, None)]


def rasters(folder):
    return [(folder / name).read_bytes() for name in ("sum.f32", "weight.f32")]


def stitcher(folder):
    return Stitcher(SIZE, Mpp(0.25, 0.25), 2.3, LARGEST, folder, band=8)


def spooled(tiles, folder):
    with Spool(folder) as spool:
        for tile in tiles:
            spool.add(*tile)
        target = stitcher(folder)
        spool.stitch(target)
    return target.finish()


def test_any_order_of_arrival_gives_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    tiles = mixed_tiles(rng, 60)
    one = spooled(tiles, tmp_path / "one")
    for k in range(6):
        order = rng.permutation(len(tiles))
        other = spooled([tiles[i] for i in order], tmp_path / f"{k}")
        assert rasters(other.folder) == rasters(one.folder)
        # The parts of the ledger are the same numbers, too, not only nearly.
        told = ("given", "map_sum", "rounding", "cut_off", "absolute_sum", "tiles")
        assert [getattr(other, name) for name in told] == [getattr(one, name) for name in told]


def test_every_permutation_of_a_few_tiles_at_one_place(tmp_path):
    box = Box(10.0, 10.0, 64.0, 64.0)
    # 1 + 1e-17 - 1 depends on the order in which it is added up.
    tiles = [(box, np.full((1, 1), value)) for value in (1.0, 1e-17, -1.0, 3e-17)]
    made = {
        tuple(rasters(spooled(order, tmp_path / f"{k}").folder))
        for k, order in enumerate(itertools.permutations(tiles))
    }
    assert len(made) == 1


def test_what_was_spooled_is_what_a_stitcher_is_given(tmp_path):
    tiles = mixed_tiles(np.random.default_rng(1), 40)
    plain = stitcher(tmp_path / "plain")
    for box, cells, weight, covers in sorted(tiles, key=lambda tile: tile[0].y):
        plain.add(box, cells, weight, covers)
    expected, found = plain.finish(), spooled(tiles, tmp_path / "spooled")
    assert found.map_sum == pytest.approx(expected.map_sum, abs=1e-9)
    assert found.cut_off == pytest.approx(expected.cut_off, abs=1e-12)
    # The order within a row differs, so float64 sums do in their last digits.
    for a, b in ((found.additive, expected.additive), (found.coverage, expected.coverage)):
        np.testing.assert_allclose(a.values, b.values, rtol=2**-22, atol=1e-12)


def test_threads_may_add_at_once_and_several_stitchers_be_fed(tmp_path):
    tiles = mixed_tiles(np.random.default_rng(2), 80)
    with Spool(tmp_path / "threads") as spool:

        def work(rank):
            for tile in tiles[rank::4]:
                spool.add(*tile)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(spool) == len(tiles)
        first, second = stitcher(tmp_path / "a"), stitcher(tmp_path / "b")
        spool.stitch(first)
        # More may come between two maps.
        spool.add(*tiles[0])
        spool.stitch(second)
    one = spooled(tiles, tmp_path / "one")
    assert rasters(first.finish().folder) == rasters(one.folder)
    assert second.finish().tiles == len(tiles) + 1


def test_an_empty_spool_makes_an_empty_map(tmp_path):
    assert np.isnan(spooled([], tmp_path).additive.values).all()


def test_scratch_files_are_removed(tmp_path):
    spooled(mixed_tiles(np.random.default_rng(3), 5), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sum.f32", "weight.f32"]


@pytest.mark.parametrize("cells", [np.ones(3), np.ones((2, 2), np.float16), np.ones((2, 2), int)])
def test_what_cannot_be_kept_exactly_is_refused(cells, tmp_path):
    with Spool(tmp_path) as spool, pytest.raises(ValueError, match="float32 or float64"):
        spool.add(Box(0, 0, 5, 5), cells)


def test_what_the_stitcher_refuses_is_refused(tmp_path):
    with Spool(tmp_path) as spool:
        spool.add(Box(0, 0, 100, 5), np.ones((1, 1)))
        with pytest.raises(ValueError, match="larger than"):
            spool.stitch(stitcher(tmp_path / "map"))


@pytest.fixture
def small_disk():
    """Files end at 10,000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


# Twelve are still in the buffer when they are to be stitched.
@pytest.mark.parametrize("count", [12, 200])
def test_a_full_disk_is_one_line_and_leaves_nothing(count, tmp_path, small_disk):
    box, cells = Box(0, 0, 5, 5), np.ones((10, 12))
    with pytest.raises(OutputError, match="cannot keep contributions") as caught:
        spooled([(box, cells)] * count, tmp_path)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["sum.f32", "weight.f32"])


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot keep contributions"):
        Spool(tmp_path / "file" / "scratch")
