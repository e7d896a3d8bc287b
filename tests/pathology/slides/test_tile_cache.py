"""The tiles decoded last."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pathology.slides.tile_cache import TileCache


def tile(value: int, count: int = 10) -> np.ndarray:
    return np.full(count, value, np.uint8)


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = TileCache(30)
    for i in range(3):
        cache.put(i, tile(i))
    assert cache.get(0) is not None
    cache.put(3, tile(3))
    assert cache.get(1) is None
    assert [int(cache.get(i)[0]) for i in (0, 2, 3)] == [0, 2, 3]
    assert cache.bytes == 30


def test_one_that_is_larger_than_all_stays_until_the_next() -> None:
    cache = TileCache(30)
    cache.put("small", tile(1))
    cache.put("large", tile(2, 100))
    assert cache.get("small") is None
    assert cache.get("large") is not None
    cache.put("next", tile(3))
    assert cache.get("large") is None
    assert cache.bytes == 10


def test_a_key_keeps_its_first_tile() -> None:
    cache = TileCache(30)
    cache.put("a", tile(1))
    cache.put("a", tile(2))
    assert cache.get("a")[0] == 1
    assert cache.bytes == 10


def test_clear() -> None:
    cache = TileCache(30)
    cache.put("a", tile(1))
    cache.clear()
    assert cache.get("a") is None
    assert cache.bytes == 0


def test_threads_keep_the_count() -> None:
    cache = TileCache(200)

    def use(seed: int) -> None:
        for key in np.random.default_rng(seed).integers(0, 60, 500).tolist():
            found = cache.get(key)
            assert found is None or found[0] == key
            cache.put(key, tile(key))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert cache.bytes == sum(found.nbytes for found in cache._tiles.values()) <= 200
