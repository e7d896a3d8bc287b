"""One cache of OpenSlide's for all slides of a process that asks for it."""

import openslide
import pytest
import tifffile

from pathology.slides import open_slide
from pathology.slides import openslide as module


@pytest.fixture
def caches(monkeypatch):
    """What handles are told to use."""
    found = []
    real = openslide.OpenSlide.set_cache

    def note(handle, cache):
        found.append(cache)
        real(handle, cache)

    monkeypatch.setattr(openslide.OpenSlide, "set_cache", note)
    monkeypatch.setattr(module, "_shared_cache", None)
    return found


@pytest.fixture
def slides(tmp_path, rng):
    for name in "ab":
        pixels = rng.integers(0, 255, (512, 512, 3), "uint8")
        options = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib"}
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, **options)
    return sorted(tmp_path.glob("*.tif"))


def test_each_has_its_own_when_nobody_asked(caches, slides):
    for path in slides:
        open_slide(path, 0.5).close()
    assert caches == []


def test_one_for_all(caches, slides):
    module.share_cache(2**20)
    module.share_cache(2**24)  # the first call decides
    opened = [open_slide(path, 0.5) for path in slides]
    assert len(caches) == 2
    assert caches[0] is caches[1]
    for slide in opened:
        assert slide.thumbnail(64).shape == (64, 64, 3)


def test_a_forked_child_has_its_own(caches, slides, monkeypatch):
    module.share_cache(2**20)
    monkeypatch.setattr(module.os, "getpid", lambda: -1)
    open_slide(slides[0], 0.5)
    assert caches == []
