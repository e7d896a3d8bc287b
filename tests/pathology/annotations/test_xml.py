"""XML of ASAP and ImageScope."""

import math

import numpy as np
import pytest
import shapely

from pathology.annotations import read_annotations
from pathology.annotations.asap import closed_curve
from pathology.errors import AnnotationError

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


def read(tmp_path, text):
    path = tmp_path / "made.xml"
    path.write_text(text, "utf-8")
    return read_annotations(path)


def asap(points=SQUARE, kind="Polygon", group="_0", groups="", order=None, name="Annotation 0"):
    order = range(len(points)) if order is None else order
    coordinates = "".join(
        f'<Coordinate Order="{i}" X="{x}" Y="{y}" />'
        for i, (x, y) in zip(order, points, strict=True)
    )
    return f"""<?xml version="1.0"?>
<ASAP_Annotations>
  <Annotations>
    <Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">
      <Coordinates>{coordinates}</Coordinates>
    </Annotation>
  </Annotations>
  <AnnotationGroups>{groups}</AnnotationGroups>
</ASAP_Annotations>"""


def aperio(regions, name="", colour="65280", attribute='Name="Description" Value=""'):
    return f"""<Annotations MicronsPerPixel="0.25">
  <Annotation Id="1" Name="{name}" LineColor="{colour}">
    <Attributes><Attribute {attribute} Id="0"/></Attributes>
    <Regions>
      <RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region"/></RegionAttributeHeaders>
      {"".join(regions)}
    </Regions>
    <Plots/>
  </Annotation>
</Annotations>"""


def region(points=SQUARE, kind="0", negative="0", text="", attributes=""):
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    return (
        f'<Region Id="7" Type="{kind}" Text="{text}" NegativeROA="{negative}">'
        f"<Attributes>{attributes}</Attributes><Vertices>{vertices}</Vertices></Region>"
    )


@pytest.mark.parametrize("kind", ["Polygon", "Rectangle", "polygon"])
def test_asap_areas(tmp_path, kind):
    found = read(tmp_path, asap(kind=kind))
    assert found.format == "asap"
    assert found.drawn[0].geometry.equals(shapely.box(0, 0, 10, 10))
    assert found.drawn[0].names == ("_0",)
    assert "'Annotation 0'" in found.drawn[0].where


def test_asap_points_come_in_their_order(tmp_path):
    shuffled = [SQUARE[i] for i in (2, 0, 3, 1)]
    assert read(tmp_path, asap(shuffled, order=(2, 0, 3, 1))).drawn[0].geometry.area == 100


def test_asap_groups(tmp_path):
    groups = (
        '<Group Name="_0" PartOfGroup="Tumor" Color="#000000"><Attributes /></Group>'
        '<Group Name="Tumor" PartOfGroup="All" /><Group Name="All" PartOfGroup="None" />'
    )
    assert read(tmp_path, asap(groups=groups)).drawn[0].names == ("_0", "Tumor", "All")
    circle = '<Group Name="_0" PartOfGroup="b" /><Group Name="b" PartOfGroup="_0" />'
    assert read(tmp_path, asap(groups=circle)).drawn[0].names == ("_0", "b")
    assert read(tmp_path, asap(group="None")).drawn[0].names == ("",)


def test_asap_splines_are_curves(tmp_path):
    """16 knots on a circle: Catmull-Rom is then within 1 % of it, the polygon 2.6 % below."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    knots = np.c_[500 + 100 * np.cos(angle), 500 + 100 * np.sin(angle)]
    area = read(tmp_path, asap(knots.tolist(), kind="Spline")).drawn[0].geometry.area
    assert area == pytest.approx(math.pi * 100**2, rel=0.01)
    assert area > 1.01 * shapely.Polygon(knots).area
    curve = closed_curve(knots)
    assert shapely.distance(shapely.LinearRing(curve), shapely.points(knots)).max() < 1e-9


def test_a_catmull_rom_curve_is_that_of_the_formula():
    """Its middle between two knots: (-a + 9 b + 9 c - d) / 16."""
    knots = np.random.default_rng(0).normal(size=(5, 2))
    middles = closed_curve(knots).reshape(5, -1, 2)[:, 8]
    a, b, c, d = (np.roll(knots, -i, axis=0) for i in (-1, 0, 1, 2))
    a = np.roll(knots, 1, axis=0)
    np.testing.assert_allclose(middles, (-a + 9 * b + 9 * c - d) / 16, atol=1e-12)


@pytest.mark.parametrize("kind", ["Dot", "PointSet", "Measurement"])
def test_asap_points_have_no_area(tmp_path, kind):
    found = read(tmp_path, asap([(1, 2)], kind=kind))
    assert found.drawn == ()
    assert found.notes == {"points and lines, left out": 1}


def test_decimal_commas(tmp_path):
    points = [("0,5", "0,25"), ("10,5", "0,25"), ("10,5", "10,25"), ("0,5", "10,2500")]
    assert (
        read(tmp_path, asap(points)).drawn[0].geometry.equals(shapely.box(0.5, 0.25, 10.5, 10.25))
    )


@pytest.mark.parametrize("number", ["71,924", "1,2,3", "", "abc", "1.5.2"])
def test_what_is_no_number_or_may_be_two_names_the_line(tmp_path, number):
    with pytest.raises(
        AnnotationError, match=rf"made.xml: line 5: X must be a number, got '{number}'"
    ):
        read(tmp_path, asap([(number, 0), *SQUARE[1:]]))


@pytest.mark.parametrize("bad", ["nan", "inf", "1e308"])
def test_numbers_that_no_slide_has_are_refused(tmp_path, bad):
    for text in (
        asap([(bad, 0), *SQUARE[1:]], kind="Spline"),
        asap([(bad, 0), *SQUARE[1:]]),
        asap(order=[0, bad, 2, 3]),  # would sort anywhere
        aperio([region([(bad, 0), (40, 20)], kind="2")]),
    ):
        with pytest.raises(AnnotationError, match=r"line \d+: (X|Order) must be a number"):
            read(tmp_path, text)


def test_asap_refuses(tmp_path):
    with pytest.raises(AnnotationError, match=r"annotation 0 .* is a 'blob'"):
        read(tmp_path, asap(kind="Blob"))
    with pytest.raises(AnnotationError, match=r"line 5: X must be a number, got 'nan'"):
        read(tmp_path, asap([(0, 0), ("nan", 1), (2, 2)]))
    with pytest.raises(AnnotationError, match="line 1: a point of no annotation"):
        read(tmp_path, '<ASAP_Annotations><Coordinate X="1" Y="2" /></ASAP_Annotations>')


def test_aperio_regions(tmp_path):
    found = read(tmp_path, aperio([region(), region([(x + 20, y) for x, y in SQUARE])]))
    assert found.format == "aperio"
    assert [one.geometry.area for one in found.drawn] == [100, 100]
    assert found.drawn[0].names == ("#00ff00",)
    assert found.drawn[0].where == "region 7 of layer 1 (line 6)"


@pytest.mark.parametrize(
    ("layer", "of_region", "names"),
    [
        ({"name": "Tumor"}, {}, ("Tumor", "#00ff00")),
        ({"attribute": 'Name="CaP" Value=""'}, {}, ("CaP", "#00ff00")),
        ({"attribute": 'Name="Description" Value="invasive"'}, {}, ("invasive", "#00ff00")),
        ({"name": "L"}, {"text": "in situ"}, ("in situ", "L", "#00ff00")),
        ({"colour": "255"}, {"attributes": '<Attribute Name="kind" Value="benign"/>'},
         ("benign", "kind", "#ff0000")),
        ({"colour": "16711680"}, {}, ("#0000ff",)),
        ({"colour": ""}, {}, ("",)),
    ],
)  # fmt: skip
def test_aperio_names(tmp_path, layer, of_region, names):
    assert read(tmp_path, aperio([region(**of_region)], **layer)).drawn[0].names == names


def test_aperio_negative_regions_are_cut_out_of_their_layer(tmp_path):
    hole = region([(2, 2), (6, 2), (6, 6), (2, 6)], negative="1")
    found = read(tmp_path, aperio([hole, region(), region([(5, 5), (8, 5), (8, 8), (5, 8)])]))
    assert [one.geometry.area for one in found.drawn] == [84, 8]
    swallowed = read(
        tmp_path,
        aperio(
            [
                region(),
                region(
                    [(x - 1, y - 1) for x, y in [(0, 0), (20, 0), (20, 20), (0, 20)]], negative="1"
                ),
            ]
        ),
    )
    assert swallowed.drawn == ()
    assert swallowed.notes == {"without an area, left out": 1}


@pytest.mark.parametrize("count", [2, 4])
def test_aperio_ellipses_and_rectangles_by_corners(tmp_path, count):
    corners = [(0, 0), (40, 20)] if count == 2 else [(0, 0), (40, 0), (40, 20), (0, 20)]
    ellipse = read(tmp_path, aperio([region(corners, kind="2")])).drawn[0].geometry
    assert ellipse.area == pytest.approx(math.pi * 20 * 10, rel=2e-4)
    assert ellipse.bounds == pytest.approx((0, 0, 40, 20))
    rectangle = read(tmp_path, aperio([region(corners, kind="1")])).drawn[0].geometry
    assert rectangle.equals(shapely.box(0, 0, 40, 20))


def test_aperio_shapes_of_other_types(tmp_path):
    turned = [(10, 0), (20, 10), (10, 20), (0, 10)]
    assert read(tmp_path, aperio([region(turned, kind="1")])).drawn[0].geometry.area == 200
    outline = [*SQUARE, (-5, 5)]
    assert read(tmp_path, aperio([region(outline, kind="1")])).drawn[0].geometry.area == 125
    found = read(tmp_path, aperio([region(SQUARE[:2], kind=kind) for kind in "345"]))
    assert (found.drawn, found.notes) == ((), {"points and lines, left out": 3})


@pytest.mark.parametrize("colour", ["99999999999999999999999999", "-1", "red", ""])
def test_aperio_colours_that_are_none(tmp_path, colour):
    (one,) = read(tmp_path, aperio([region(text="t")], colour=colour)).drawn
    assert one.names == ("t",)


def test_aperio_refuses(tmp_path):
    for text in ('<Region Id="1"/>', '<Vertex X="1" Y="2"/>', '<Attribute Name="a"/>'):
        with pytest.raises(AnnotationError, match=r"line 1: a (region|point) of no"):
            read(tmp_path, f"<Annotations>{text}</Annotations>")


BOMB = """<?xml version="1.0"?>
<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<ASAP_Annotations>&b;</ASAP_Annotations>"""
OUTSIDE = """<?xml version="1.0"?>
<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/hostname">]>
<ASAP_Annotations>&a;</ASAP_Annotations>"""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (BOMB, "defines an entity 'a'"),
        (OUTSIDE, "defines an entity 'a'"),
        ("", "no XML"),
        ("rubbish", "no XML"),
        (asap()[:-60], "no XML, or damaged"),
        (
            asap().replace("1.0", '1.0" encoding="martian', 1),
            "no XML, or damaged: unknown encoding",
        ),
        ("<annotation><object/></annotation>", "neither of ASAP nor of ImageScope.*<annotation>"),
    ],
)
def test_refuses_what_is_no_annotation(tmp_path, text, what):
    with pytest.raises(AnnotationError, match=what):
        read(tmp_path, text)


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(AnnotationError, match="No such file"):
        read_annotations(tmp_path / "gone.xml")


def test_what_one_is_called_and_drawn_in(tmp_path):
    one = read(tmp_path, asap(name="north")).drawn[0]
    assert (one.title, one.colour) == ("north", "#f4fa58")
    one = read(tmp_path, asap().replace("#F4FA58", "yellow")).drawn[0]
    assert one.colour == ""
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in SQUARE)
    one = read(tmp_path, aperio([f'<Region Text="south">{vertices}</Region>'])).drawn[0]
    assert (one.title, one.colour) == ("south", "#00ff00")
