"""A printed figure: its colours, its places, its record, and the same bytes for the same input."""

import datetime
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from pathology.explain.ledger import Ledger, Undivided
from pathology.explain.results.figure import Panel, SlideFigure, _Drawing, write_figure
from pathology.geometry import Box, Mpp, Size
from pathology.maps.slide_map import SlideMap

RECORD = {"slide_id": "case 1", "ledger": {"score": -1.25}, "what": "µm² 病理 \\ ( )"}
LEDGER = Ledger(-1.25, -2.0, 0.5, 0.25, 1e-4)


def dot(logits=1.0):
    """A pixel of 8 um in a covered part of a slide of 1000 x 800 px."""
    values = np.full((25, 32), np.nan)
    values[5:20, 5:25] = 0.0
    values[10, 20] = logits
    return SlideMap(values, Box(0, 0, 32 * 32.0, 25 * 32.0), Mpp(0.25, 0.25), "logit")


def plain_figure():
    return SlideFigure(
        "case 1",
        Size(1000.0, 800.0),
        Mpp(0.25, 0.25),
        np.full((80, 100, 3), 200, np.uint8),
        [Panel("tumour", LEDGER, dot())],
        {"checkpoint": "abc123", "made": "2026-11-26 03:44 UTC"},
    )


@pytest.fixture
def figure():
    return plain_figure()


@pytest.fixture(scope="module")
def pdf(tmp_path_factory):
    """A figure of two panels, one with a constant of its own; fonts take time, so one for all."""
    path = tmp_path_factory.mktemp("figure") / "figure.pdf"
    ledger = replace(LEDGER, bias=-2.5, constants={"position": 0.5})
    doubled = Panel("tumour - normal", ledger, dot(2.0))
    two = replace(plain_figure(), panels=[Panel("tumour", LEDGER, dot()), doubled], limit=123.0)
    assert write_figure(path, two, RECORD, dpi=72) == 123.0
    return PdfReader(path)


def words(pdf):
    return pdf.pages[0].extract_text().replace("\u2212", "-")


def test_the_pdf_says_what_it_shows(pdf):
    for told in ("case 1", "tumour: score -1.250 logits", "-2.000000", "+0.500000", "closed"):
        assert told in words(pdf)
    for told in ("50 µm", "logits per mm²", "+123", "abc123", "no tile was looked at"):
        assert told in words(pdf)
    assert "1.0e-04" in words(pdf)  # the tolerance
    # One of 300 pixels in each map is beyond the scale.
    assert "0.3 % of the covered area" in words(pdf)


def test_the_pdf_carries_its_record_and_date(pdf):
    assert json.loads(pdf.metadata["/Keywords"]) == RECORD
    assert pdf.metadata.title == "case 1: tumour, tumour - normal"
    made = datetime.datetime(2026, 11, 26, 3, 44, tzinfo=datetime.UTC)
    assert pdf.metadata.creation_date == made


def test_letters_are_embedded_as_truetype(pdf):
    fonts = [font.get_object() for font in pdf.pages[0]["/Resources"]["/Font"].values()]
    assert {font["/Subtype"] for font in fonts} <= {"/TrueType", "/Type0"}
    for font in fonts:
        for below in font.get("/DescendantFonts", [font]):
            assert "/FontFile2" in below.get_object()["/FontDescriptor"]


def test_the_png_carries_its_record(figure, tmp_path):
    path = tmp_path / "figure.png"
    write_figure(path, figure, RECORD, dpi=100)
    with Image.open(path) as picture:
        assert json.loads(picture.text["bcos_pathology"]) == RECORD
        assert picture.text["Creation Time"] == "2026-11-26T03:44:00+00:00"
        assert picture.width == pytest.approx(180 / 25.4 * 100, abs=1)
        assert picture.info["dpi"] == pytest.approx((100, 100), abs=0.1)


def test_the_same_input_gives_the_same_bytes(figure, tmp_path, monkeypatch):
    """Whatever is set around it, and whether drawn for one file or for two."""
    import matplotlib

    both = [tmp_path / "both.pdf", tmp_path / "both.png"]
    write_figure(both, figure, RECORD, dpi=72)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for path in both:
        alone = tmp_path / f"alone{path.suffix}"
        with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "pdf.compression": 0}):
            write_figure(alone, replace(figure), dict(RECORD), dpi=72)
        assert alone.read_bytes() == path.read_bytes()


def test_without_a_date_there_is_none(figure, tmp_path):
    path = tmp_path / "figure.png"
    write_figure(path, replace(figure, provenance={"made": "yesterday"}), dpi=40)
    with Image.open(path) as picture:
        assert "Creation Time" not in picture.text


def test_a_dot_is_drawn_where_it_lies(figure, tmp_path):
    path = tmp_path / "figure.png"
    write_figure(path, figure, dpi=300)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    mm = 25.4 / 300
    # Two panels of 86.25 mm, the second's heat beside grey tissue; the bar lies below both.
    down = 1000 / 86.25
    left, top = 2 + 86.25 + 3.5, 2 + 5.2 + 3.2 + 0.4
    picture = pixels[: int((top + 69) / mm), int(left / mm) :]
    rows, columns = np.nonzero(picture[..., 0] - picture[..., 2] > 60)
    x = ((columns.mean() + 0.5 + int(left / mm)) * mm - left) * down
    y = ((rows.mean() + 0.5) * mm - top) * down
    # Half a pixel of the paper is 0.5 level-0 px; one of the map is 32.
    assert x == pytest.approx(20.5 * 32, abs=2)
    assert y == pytest.approx(10.5 * 32, abs=2)
    assert np.ptp(columns) * mm * down == pytest.approx(32, abs=2)


def test_only_what_no_tile_looked_at_is_hatched(figure, tmp_path):
    covered = replace(dot(), values=np.nan_to_num(dot().values))
    pictures = []
    for slide_map in (dot(), covered):
        path = tmp_path / "figure.png"
        write_figure(path, replace(figure, panels=[Panel("tumour", LEDGER, slide_map)]), dpi=100)
        pictures.append(np.asarray(Image.open(path)))
    mm = 25.4 / 100
    left, top, down = 2 + 86.25 + 3.5, 2 + 5.2 + 3.2 + 0.4, 1000 / 86.25
    differ = (pictures[0] != pictures[1]).any(axis=-1)
    rows, columns = np.nonzero(differ[: int((top + 68.5) / mm)])
    x, y = ((columns + 0.5) * mm - left) * down, ((rows + 0.5) * mm - top) * down
    inside = (x > 5 * 32 + 2) & (x < 25 * 32 - 2) & (y > 5 * 32 + 2) & (y < 20 * 32 - 2)
    assert len(rows) > 500
    assert not inside.any()
    assert differ[int((top + 69) / mm) :].any()  # and the legend tells it


def test_panels_share_the_largest_scale(figure):
    double = Panel("b - c", LEDGER, dot(2.0))
    alone = _Drawing(replace(figure, panels=[double]), 40)
    both = _Drawing(replace(figure, panels=[*figure.panels, double]), 40)
    assert {layer.limit for layer in both.layers} == {both.limit} == {alone.limit}
    # Each is rounded up to two digits.
    assert alone.limit == pytest.approx(2 * _Drawing(figure, 40).limit, rel=0.05)


def test_the_table_has_every_part_of_every_ledger(figure):
    other = replace(LEDGER, bias=-2.5, map_sum=0.7, constants={"position": 0.5})
    panels = [*figure.panels, Panel("b", other, dot())]
    rows = _Drawing(replace(figure, panels=panels), 40)._ledger()
    assert [row[0] for row in rows[1:5]] == ["bias", "position", "map", "cut off"]
    assert rows[2][1:] == ["0", "+0.500000"]  # that only one has it is a zero in the other
    assert rows[-1] == ["the ledger is", "closed", "NOT CLOSED"]
    partly = replace(LEDGER, undivided=Undivided(3, -0.125, 0.25))
    panels = [*figure.panels, Panel("b", partly, dot())]
    rows = _Drawing(replace(figure, panels=panels), 40)._ledger()
    assert rows[3] == ["of it, undivided", "0", "\u22120.125000"]


def test_any_name_is_drawn(figure, tmp_path):
    names = ["$x^2$ <b>", "病理\n\tcase", "name_" * 60, "", "a \\frac{"]
    panels = [replace(figure.panels[0], target=name) for name in names]
    # Letters that the font has not would be a warning, and so an error here.
    odd = replace(figure, panels=panels, provenance=dict.fromkeys(names, "".join(names)))
    name = "".join(names)
    write_figure(tmp_path / "figure.png", replace(odd, slide_id=name), {"name": name}, dpi=40)
    with Image.open(tmp_path / "figure.png") as picture:
        assert json.loads(picture.text["bcos_pathology"]) == {"name": name}


@pytest.mark.parametrize("size", [(8000.0, 400.0), (400.0, 8000.0), (1.0, 1.0)])
@pytest.mark.parametrize("count", [1, 4])
def test_any_shape_of_slide_fits_a_page(figure, tmp_path, size, count):
    size = Size(*size)
    slide_map = SlideMap(np.ones((9, 9)), Box(0, 0, *size), Mpp(0.25, 0.5), "logit")
    panels = [Panel("tumour", LEDGER, slide_map)] * count
    path = tmp_path / "figure.png"
    drawn = replace(figure, slide_size=size, slide_mpp=Mpp(0.25, 0.5), panels=panels)
    write_figure(path, drawn, dpi=20)
    with Image.open(path) as picture:
        width, height = (side / 20 * 25.4 for side in picture.size)
    assert width == pytest.approx(180, abs=2)
    assert height < 250


def test_a_map_larger_than_memory_should_hold_is_read_in_strips(figure, tmp_path):
    values = np.memmap(tmp_path / "sum.f32", np.float32, "w+", shape=(4000, 3000))
    values[2000, 1500] = 1.0
    values.flush()
    large = SlideMap(values, Box(0, 0, 1000.0, 800.0), Mpp(0.25, 0.25), "logit")
    panels = [Panel("tumour", LEDGER, large)]
    tracemalloc.start()
    _Drawing(replace(figure, panels=panels), 40)  # what is drawn of it later has the paper's size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 128 rows in float64 and their sums are 6 MB; the whole map in float32 is 48 MB.
    assert peak < 24e6


def test_what_cannot_be_written_is_refused(figure, tmp_path):
    with pytest.raises(ValueError, match=r"figure\.svg"):
        write_figure(tmp_path / "figure.svg", figure)
    with pytest.raises(ValueError, match=r"figure\.svg"):
        write_figure([tmp_path / "figure.png", tmp_path / "figure.svg"], figure)
    with pytest.raises(ValueError, match="JSON"):
        write_figure(tmp_path / "figure.pdf", figure, {"score": float("nan")})
    with pytest.raises(ValueError, match="dpi"):
        write_figure(tmp_path / "figure.pdf", figure, dpi=0)
    with pytest.raises(ValueError, match="at least one panel"):
        replace(figure, panels=[])
    assert not list(tmp_path.iterdir())
