"""Fitting once per slide: what has a say, what has none, and when there is too little."""

from dataclasses import replace

import numpy as np
import pytest

from pathology.errors import NoTissueError
from pathology.slides.memory import MemorySlide
from pathology.stain import StainSettings, fit_image, fit_profile
from pathology.stain.vectors import angle
from pathology.tiling import TileSpec, tile_slide

METHODS = ["macenko", "vahadane", "reinhard"]
SPEC = TileSpec(size_px=32, mpp=1.0, min_tissue=0)


@pytest.fixture
def make_slide(make_tissue):
    """A slide of 256 px whose left part is tissue and the rest glass, and all of its tiles."""

    def make(tissue_px=128, slide_id="case_7", glass=240, **how):
        array = np.full((256, 256, 3), glass, np.uint8)
        if tissue_px:
            array[:, :tissue_px] = make_tissue(256 * tissue_px, **how)[0].reshape(256, -1, 3)
        slide = MemorySlide(array, 1.0, slide_id)
        return slide, tile_slide(slide, SPEC)

    return make


@pytest.mark.parametrize("method", METHODS)
def test_the_same_each_time_and_nearly_so_by_another_seed(make_slide, method):
    slide, grid = make_slide(noise=2.0)
    one, again, other = (
        fit_profile(slide, grid, StainSettings(method, tiles=20, pixels=5000, seed=seed))
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other
    if method == "reinhard":
        np.testing.assert_allclose(one.means, other.means, atol=1.5)
    else:
        assert angle(np.stack([one.stains[0], other.stains[0]])) < 2
        np.testing.assert_allclose(one.amounts, other.amounts, rtol=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_blank_tiles_have_no_say(make_slide, method):
    slide, grid = make_slide()
    blank = grid.x >= 128
    assert blank.sum() == 32
    settings = StainSettings(method, tiles=64, pixels=10**6)
    everything = fit_profile(slide, grid, settings)
    tissue = fit_profile(slide, grid.select(~blank), settings)
    assert everything.source.pixels == tissue.source.pixels > 30_000
    # Vahadane's looks at 20,000 of them, and draws others.
    tolerance = 0.01 if method == "vahadane" else 1e-9
    for name in ("stains", "amounts", "means", "deviations"):
        ours, theirs = getattr(everything, name), getattr(tissue, name)
        if theirs is not None:
            np.testing.assert_allclose(ours, theirs, rtol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_too_little_stain_names_the_slide(make_slide, method):
    slide, grid = make_slide(tissue_px=0)
    with pytest.raises(NoTissueError, match=r"'case_7': too little stain .* 0 of 65536 pixels"):
        fit_profile(slide, grid, StainSettings(method))


def test_a_black_slide_is_refused(rng):
    array = rng.integers(0, 12, (256, 256, 3), dtype=np.uint8)
    slide = MemorySlide(array, 1.0, "black")
    with pytest.raises(NoTissueError, match="'black': too little stain"):
        fit_profile(slide, tile_slide(slide, SPEC))


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
@pytest.mark.parametrize("only", [(0.65, 0.70, 0.29), (0.22, 0.80, 0.56)])
def test_a_single_stain_is_refused(make_tissue, method, only):
    pixels, _ = make_tissue(stains=(only, only), noise=2.0)
    with pytest.raises(NoTissueError, match=r"img\.png: only one stain: .* degrees apart"):
        fit_image(pixels, StainSettings(method), name="img.png")


def test_one_colour_is_refused_by_reinhard():
    pixels = np.full((64, 64, 3), (150, 90, 140), np.uint8)
    with pytest.raises(NoTissueError, match="one colour"):
        fit_image(pixels, StainSettings("reinhard"))


def test_ink_and_pigment_hardly_move_the_vectors(make_tissue, rng):
    pixels, truth = make_tissue()
    ink = np.concatenate([
        rng.normal(colour, 6, (4000, 3)) for colour in ((20, 60, 160), (30, 130, 60), (10, 10, 12))
    ]).clip(0, 255).astype(np.uint8)  # fmt: skip
    inked = np.concatenate([pixels, ink[None]], axis=1)
    for profile in (fit_image(pixels), fit_image(inked)):
        for found, true in zip(profile.stains, truth, strict=True):
            assert angle(np.stack([found, true])) < 1.5
    assert fit_image(inked).source.pixels <= fit_image(pixels).source.pixels + 200


def test_white_is_as_said_or_as_seen(make_slide):
    slide, grid = make_slide(glass=225, white=225.0)
    seen = fit_profile(slide, grid, StainSettings(white="glass"))
    assert seen.white == (225.0, 225.0, 225.0)
    assert fit_profile(slide, grid).white == (240.0, 240.0, 240.0)


def test_memory_and_pixels_are_bounded_however_large_the_tiles(make_slide):
    slide, grid = make_slide()
    profile = fit_profile(slide, grid, StainSettings(tiles=10, pixels=1200))
    assert 1000 <= profile.source.pixels <= 1200


def test_where_a_profile_is_from(make_slide):
    slide, grid = make_slide()
    source = fit_profile(slide, grid).source
    assert (source.name, source.stamp) == ("case_7", slide.stamp())
    assert source.tiles != fit_profile(slide, grid[:60]).source.tiles


def test_a_slide_in_another_colour_than_its_tiles_is_refused(make_slide):
    slide, grid = make_slide()
    grid = replace(grid, spec=replace(grid.spec, colour="srgb"))
    with pytest.raises(ValueError, match="'case_7' is opened with colour='stored', its tiles are"):
        fit_profile(slide, grid)


def test_a_profile_in_srgb_says_so(make_tissue):
    from PIL import ImageCms

    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    array = make_tissue(256 * 256)[0].reshape(256, 256, 3)
    slide = MemorySlide(array, 1.0, "case_7", colour="srgb", profile=icc)
    profile = fit_profile(slide, tile_slide(slide, replace(SPEC, colour="srgb")))
    assert profile.source.colour == "srgb"


@pytest.mark.parametrize("method", METHODS)
def test_rounding_errors_of_other_processors_make_no_other_profile(
    make_tissue, method, monkeypatch
):
    from pathology.stain import fit

    pixels, _ = make_tissue(20_000)
    settings = StainSettings(method)
    before = fit_image(pixels, settings)
    exact = fit.density
    monkeypatch.setattr(fit, "density", lambda *args: exact(*args) * (1 + 1e-14))
    if method == "reinhard":
        import skimage.color

        lab = skimage.color.rgb2lab
        monkeypatch.setattr(skimage.color, "rgb2lab", lambda rgb: lab(rgb) * (1 + 1e-14))
    assert fit_image(pixels, settings).digest() == before.digest()


def test_what_is_no_image_is_refused(make_tissue):
    pixels, _ = make_tissue(5000)
    with pytest.raises(TypeError, match="uint8"):
        fit_image(pixels.astype(np.float32))
    with pytest.raises(ValueError, match=r"\(height, width, 3\)"):
        fit_image(pixels[0])
