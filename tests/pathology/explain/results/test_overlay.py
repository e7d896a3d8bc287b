import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pathology.errors import OutputError
from pathology.explain.results.overlay import (
    draw_scale_bar,
    heat_layer,
    overlay_png,
    round_up,
    scale_bar,
    signed,
    tick,
)
from pathology.geometry import Box, Mpp, Size
from pathology.maps.slide_map import SlideMap

SIZE = Size(1000.0, 800.0)


@pytest.fixture
def slide_map():
    """32 level-0 pixels at 0.25 mpp per map pixel; the last column reaches over the edge."""
    values = np.full((25, 32), np.nan)
    values[5:20, 5:25] = 0.0
    values[10, 20] = 1.0
    return SlideMap(values, Box(0, 0, 32 * 32.0, 25 * 32.0), Mpp(0.25, 0.25), "logit")


def draw(slide_map, path, **options):
    thumbnail = np.full((80, 100, 3), 255, np.uint8)
    words = {"slide_id": "case $1_a^b$", "target": "tumour", "score": -1.25}
    return overlay_png(thumbnail, slide_map, path, slide_size=SIZE, **(words | options))


def test_colours_are_logits_per_mm2(slide_map):
    layer = heat_layer(slide_map, quantile=1.0)
    assert np.nanmax(layer.density) == pytest.approx(1.0 / (8e-3 * 8e-3))
    assert layer.limit == 16_000.0
    assert layer.clipped == 0.0
    assert layer.clipped_text == "nothing is beyond the colours"


def test_the_clipped_share_counts_covered_pixels_only(slide_map):
    layer = heat_layer(slide_map, limit=100.0)
    assert layer.clipped == 1 / 300
    assert layer.clipped_text == "0.3 % of the covered area is beyond the colours"


def test_large_maps_are_summed_and_densities_averaged(slide_map):
    additive = heat_layer(slide_map, max_side=16, limit=1.0)
    assert np.nansum(additive.density) * (16e-3) ** 2 == pytest.approx(1.0)
    values = np.where(np.isnan(slide_map.values), np.nan, 3.0)
    density = SlideMap(values, slide_map.box, slide_map.slide_mpp, "logit/mm2")
    averaged = heat_layer(density, max_side=16).density
    np.testing.assert_array_equal(averaged[np.isfinite(averaged)], 3.0)


def test_other_units_are_refused(slide_map):
    other = SlideMap(slide_map.values, slide_map.box, slide_map.slide_mpp, "fraction")
    with pytest.raises(ValueError, match="fraction"):
        heat_layer(other)
    with pytest.raises(ValueError, match="limit"):
        heat_layer(slide_map, limit=0.0)


def test_a_dot_is_drawn_where_it_lies(slide_map, tmp_path):
    path = tmp_path / "overlay.png"
    layer = draw(slide_map, path, opacity=1.0, grey=True)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    # The slide is 8 in wide at 150 dpi, 0.3 in from the left and 0.75 in from the top.
    down = 1000 / (8 * 150)
    brown = pixels[..., 0] - pixels[..., 2] > 80
    brown[int((0.75 + 6.4) * 150) :] = False
    rows, columns = np.nonzero(brown)
    x = (columns.mean() + 0.5 - 0.3 * 150) * down
    y = (rows.mean() + 0.5 - 0.75 * 150) * down
    assert abs(x - 20.5 * 32) < 16
    assert abs(y - 10.5 * 32) < 16
    assert np.ptp(columns) * down == pytest.approx(32, abs=3)
    assert layer.box.width == 1024


def test_drawing_leaves_no_figure_behind(slide_map, tmp_path):
    import matplotlib.pyplot as plt

    draw(slide_map, tmp_path / "overlay.png")
    assert plt.get_fignums() == []


def test_a_file_where_the_folder_should_be_is_one_line(slide_map, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written") as error:
        draw(slide_map, tmp_path / "file" / "overlay.png")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("width_um", "length", "label"),
    [
        (1108.0, 200, "200 µm"),
        (25_000.0, 5000, "5 mm"),
        (4000.0, 1000, "1 mm"),
        (50.0, 10, "10 µm"),
    ],
)
def test_scale_bars_are_round(width_um, length, label):
    assert scale_bar(width_um) == (length, label)


def test_a_scale_bar_is_as_long_as_it_says():
    """All of its black: 200 um of a slide of 1000 um that is drawn 1000 px wide."""
    figure = Figure(figsize=(10, 8), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 2000), ylim=(1600, 0))
    axes.set_axis_off()
    draw_scale_bar(axes, Size(2000, 1600), Mpp(0.5, 0.5))
    canvas.draw()
    black = (np.asarray(canvas.buffer_rgba())[785:, :, :3] < 128).all(axis=-1)
    assert black.sum(axis=1).max() == 200


@pytest.mark.parametrize(
    ("number", "rounded"), [(1.0, 1.0), (1.01, 1.1), (0.0301, 0.031), (995.0, 1000.0), (0.3, 0.3)]
)
def test_limits_are_rounded_up(number, rounded):
    assert round_up(number) == rounded


def test_numbers_carry_their_sign():
    assert [signed(number, 2) for number in (1234.5, -0.5, 0.0)] == [
        "+1\u202f234.50",
        "\u22120.50",
        "0",
    ]
    assert [tick(number) for number in (15.0, -0.25, 0.0)] == ["+15", "\u22120.25", "0"]
