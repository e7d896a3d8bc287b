"""The chain of sources for micrometres per pixel."""

from pathlib import Path

import pytest

from pathology.errors import MissingResolutionError
from pathology.slides.resolution import find_mpp

OPENSLIDE = {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"}
APERIO = {"aperio.MPP": "0,499"}
OME = {"ome.mpp-x": "0.3", "ome.mpp-y": "0.3"}
TIFF = {
    "tiff.XResolution": "20000",
    "tiff.YResolution": "40000",
    "tiff.ResolutionUnit": "centimeter",
}
DPI_72 = {"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"}


@pytest.mark.parametrize(
    ("properties", "given", "mpp", "source"),
    [
        (OPENSLIDE | APERIO | TIFF, 0.7, (0.7, 0.7), "given"),
        (OPENSLIDE | APERIO | TIFF, None, (0.25, 0.26), "openslide"),
        (APERIO | OME | TIFF, None, (0.499, 0.499), "aperio"),
        (OME | TIFF, None, (0.3, 0.3), "ome"),
        (TIFF, None, (0.5, 0.25), "tiff resolution"),
        (TIFF | {"tiff.ResolutionUnit": "inch"}, None, (1.27, 0.635), "tiff resolution"),
        (DPI_72 | APERIO, None, (0.499, 0.499), "aperio"),
        ({"openslide.mpp-x": "x", "openslide.mpp-y": "0.2"} | APERIO, None, (0.499,) * 2, "aperio"),
        ({"openslide.mpp-x": "nan", "openslide.mpp-y": "1"} | OME, None, (0.3, 0.3), "ome"),
        ({"openslide.mpp-x": "0", "openslide.mpp-y": "0"} | OME, None, (0.3, 0.3), "ome"),
        ({}, 29.0, (29, 29), "given"),
        (OPENSLIDE, (0.3, 0.4), (0.3, 0.4), "given"),
        ({"openslide.mpp-x": "1000", "openslide.mpp-y": "1000"} | OME, None, (0.3,) * 2, "ome"),
    ],
)
def test_sources_are_asked_in_order(
    properties: dict[str, str],
    given: float | tuple[float, float] | None,
    mpp: tuple[float, float],
    source: str,
) -> None:
    found, said_by = find_mpp(properties, given, None)
    assert found == pytest.approx(mpp)
    assert said_by == source


def test_missing_says_how_to_pass_it() -> None:
    with pytest.raises(MissingResolutionError) as caught:
        find_mpp({}, None, Path("case_007.svs"))
    assert str(caught.value) == (
        "case_007.svs: no micrometres per pixel in its metadata; "
        "pass mpp= (for example 0.25) or --mpp 0.25"
    )
    assert caught.value.path == Path("case_007.svs")


def test_72_dpi_is_no_resolution() -> None:
    with pytest.raises(MissingResolutionError, match=r"tiff resolution says 352\.778") as caught:
        find_mpp(DPI_72, None, None)
    assert "pass mpp=" in str(caught.value)
    assert "wanted 0.05 to 10" in str(caught.value)


@pytest.mark.parametrize("unit", ["none", "", "furlong"])
def test_tags_without_a_unit_say_nothing(unit: str) -> None:
    with pytest.raises(MissingResolutionError):
        find_mpp(TIFF | {"tiff.ResolutionUnit": unit}, None, None)


@pytest.mark.parametrize("value", ["0.0", "1000", "-0.25", "nan", "1e9"])
def test_absurd_metadata_is_named_and_refused(value: str) -> None:
    properties = {"openslide.mpp-x": value, "openslide.mpp-y": value}
    with pytest.raises(MissingResolutionError, match="pass mpp=") as caught:
        find_mpp(properties, None, Path("slide.svs"))
    assert value == "nan" or f"openslide says {float(value):g} x" in str(caught.value)


@pytest.mark.parametrize("mpp", [1000, 250.0, 0.001, (0.25, 1000), (1e-4, 0.25)])
def test_a_slip_of_the_unit_is_refused(mpp: float | tuple[float, float]) -> None:
    with pytest.raises(
        ValueError, match=r"mpp must be 0\.01 to 100 micrometres per pixel of level 0"
    ):
        find_mpp(OPENSLIDE, mpp, None)


@pytest.mark.parametrize("mpp", [0.0, -0.5, float("nan"), float("inf"), (0.25, 0.0)])
def test_given_must_be_possible(mpp: float) -> None:
    with pytest.raises(ValueError, match="mpp must be finite"):
        find_mpp(OPENSLIDE, mpp, None)


@pytest.mark.parametrize("mpp", [(), (0.25,), (0.25, 0.25, 0.25), [0.25]])
def test_given_is_one_number_or_two(mpp: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"mpp must be one number or two, \(x, y\), got"):
        find_mpp(OPENSLIDE, mpp, None)
