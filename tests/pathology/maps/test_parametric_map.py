"""DICOM Parametric Maps: what is refused, and what a header says; placement is a contract test."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_windowing

from pathology.errors import OutputError, SlideError, SlideOpenError
from pathology.geometry import Box, Mpp
from pathology.maps.parametric_map import check_source, write_parametric_map
from pathology.maps.slide_map import SlideMap

# importlib mode gives tests no package of their own above this folder.
MAKER = Path(__file__).parents[2] / "contract" / "dicom_slide.py"
spec = importlib.util.spec_from_file_location("made_dicom_slide", MAKER)
maker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(maker)

WIDTH, HEIGHT, MPP = 203, 150, (0.25, 0.5)


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "slide" / "0.dcm"
    path.parent.mkdir()
    maker.write_dicom_slide(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8), MPP)
    return path


@pytest.fixture
def slide_map():
    values = np.random.default_rng(0).standard_normal((10, 13)).astype(np.float32)
    values[2, 3] = np.nan
    return SlideMap(values, Box(0, 0, 13 * 16, 10 * 15.5), Mpp(*MPP), "logit")


def test_real_values_have_a_unit_a_range_and_a_window(slide, slide_map, tmp_path):
    densities = replace(slide_map, unit="logit/mm2")
    for given, code in ((slide_map, "{logit}"), (densities, "{logit}/mm2")):
        header = pydicom.dcmread(write_parametric_map(given, tmp_path / "map.dcm", slide))
        shared = header.SharedFunctionalGroupsSequence[0]
        mapping = shared.RealWorldValueMappingSequence[0]
        unit = mapping.MeasurementUnitsCodeSequence[0]
        assert (unit.CodeValue, unit.CodingSchemeDesignator) == (code, "UCUM")
        assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
        largest = float(np.nanmax(np.abs(given.values)))
        assert mapping.DoubleFloatRealWorldValueLastValueMapped == largest
        assert mapping.DoubleFloatRealWorldValueFirstValueMapped == -largest
        window = shared.FrameVOILUTSequence[0]
        assert window.WindowCenter == 0.0
        assert 0 < window.WindowWidth <= 2 * largest


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_a_viewer_shows_zero_in_the_middle_and_the_greater_brighter(
    slide, slide_map, tmp_path, size
):
    """By pydicom's reading of the standard; the default function fits whole numbers alone."""
    path = write_parametric_map(
        replace(slide_map, values=slide_map.values * size), tmp_path / "map.dcm", slide
    )
    window = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0]
    window.BitsStored, window.PixelRepresentation = 16, 1
    window.PhotometricInterpretation = "MONOCHROME2"
    values = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * float(window.WindowWidth) / 2
    shown = apply_windowing(values, window)
    share = (shown - shown[0]) / (shown[-1] - shown[0])
    np.testing.assert_allclose(share, [0.0, 0.25, 0.5, 0.75, 1.0], atol=1e-9)
    assert shown[-1] > shown[0]


def test_tiles_past_the_edge_are_nan_and_nothing_follows_them(slide, slide_map, tmp_path):
    path = write_parametric_map(slide_map, tmp_path / "map.dcm", slide, tile_px=8)
    header = pydicom.dcmread(path)
    frames = np.frombuffer(header.FloatPixelData, "<f4").reshape(-1, 8, 8)
    assert len(frames) == header.NumberOfFrames == 4
    assert np.isnan(frames[1][:, 5:]).all()
    assert np.isnan(frames[3][2:]).all()
    np.testing.assert_array_equal(frames[1][:, :5], slide_map.values[:8, 8:])
    assert path.read_bytes().endswith(frames.tobytes())


def test_the_target_names_the_series_in_any_alphabet(slide, slide_map, tmp_path):
    metadata = {"target": "Tumor \\ 腫瘍", "ledger": {"score": 1.5}}
    header = pydicom.dcmread(write_parametric_map(slide_map, tmp_path / "m.dcm", slide, metadata))
    assert header.SeriesDescription == "Tumor / 腫瘍"
    assert header.PatientName == "Made^Up"
    record = json.loads(header.private_block(0x0071, "bcos-pathology")[0x01].value)
    assert record["metadata"] == metadata


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("a\nb\r\tc\x00\x1b[31m", "a b c [31m"),
        ("x" * 63 + " y", "x" * 63),
        ('<a> & "$b"', '<a> & "$b"'),
        ("\udcff lost", "lost"),
        (" \n", "map [logit]"),
    ],
)
def test_any_target_makes_a_valid_description(slide, slide_map, tmp_path, target, shown):
    metadata = {"target": target}
    header = pydicom.dcmread(write_parametric_map(slide_map, tmp_path / "m.dcm", slide, metadata))
    assert header.SeriesDescription == header.ContentDescription == shown
    record = json.loads(header.private_block(0x0071, "bcos-pathology")[0x01].value)
    assert record["metadata"] == metadata


def test_a_map_of_the_slides_own_pixels(slide, tmp_path):
    """The same geometry as the source, of which highdicom would ask every tile at once."""
    values = np.random.default_rng(1).random((HEIGHT, WIDTH), np.float32)
    slide_map = SlideMap(values, Box(0, 0, WIDTH, HEIGHT), Mpp(*MPP), "fraction")
    path = write_parametric_map(slide_map, tmp_path / "map.dcm", slide, tile_px=64)
    found, source = pydicom.dcmread(path), pydicom.dcmread(slide)
    for name in "XYZ":
        keyword = f"{name}OffsetInSlideCoordinateSystem"
        places = (each.TotalPixelMatrixOriginSequence[0][keyword].value for each in (found, source))
        assert next(places) == next(places)
    back = hd.pm.ParametricMap.from_dataset(found).get_total_pixel_matrix(dtype=np.float32)
    np.testing.assert_array_equal(back, values)


def test_of_several_planes_the_finest_counts(slide, slide_map, tmp_path):
    first = pydicom.dcmread(slide)
    others = {"1.dcm": ("VOLUME", 2), "2.dcm": ("THUMBNAIL", 1), "3.dcm": ("LABEL", 1)}
    for name, (kind, n) in others.items():
        pixels = np.zeros((HEIGHT // n, WIDTH // n, 3), np.uint8)
        maker.write_dicom_slide(
            slide.with_name(name),
            pixels,
            (MPP[0] * n, MPP[1] * n),
            kind=kind,
            series=first.SeriesInstanceUID,
        )
    slide.with_name("notes.txt").write_text("not DICOM")
    # Micrometres that somebody gave by hand do not move the map on the glass.
    by_hand = replace(slide_map, slide_mpp=Mpp(9.0, 9.0))
    for source in (slide, slide.parent, slide.with_name("1.dcm")):
        header = pydicom.dcmread(write_parametric_map(by_hand, tmp_path / "map.dcm", source))
        assert header.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
        spacing = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        assert spacing == pytest.approx([15.5 * MPP[1] / 1000, 16 * MPP[0] / 1000])
    maker.write_dicom_slide(slide.with_name("other.dcm"), np.zeros((9, 9, 3), np.uint8), MPP)
    with pytest.raises(SlideOpenError, match="several slides"):
        write_parametric_map(slide_map, tmp_path / "map.dcm", slide.parent)


def test_what_is_no_dicom_slide_is_one_line(slide, slide_map, tmp_path):
    (tmp_path / "slide.svs").write_bytes(b"II*\0" + bytes(500))
    (tmp_path / "empty").mkdir()
    written = write_parametric_map(slide_map, tmp_path / "alone" / "map.dcm", slide)
    for source, message in (
        (tmp_path / "slide.svs", "no DICOM file, and only a slide that is DICOM"),
        (tmp_path / "missing.dcm", "no such file"),
        (tmp_path / "empty", "no plane of a DICOM slide"),
        (written, "no plane of a DICOM slide"),
    ):
        with pytest.raises(SlideOpenError, match=message) as error:
            write_parametric_map(slide_map, tmp_path / "map.dcm", source)
        assert "\n" not in str(error.value)
        with pytest.raises(SlideOpenError, match=message):
            check_source(source)
    assert not (tmp_path / "map.dcm").exists()
    check_source(slide)


@pytest.mark.parametrize(
    "lost", ["ImageType", "SeriesInstanceUID", "TotalPixelMatrixColumns", "SOPClassUID"]
)
def test_files_that_lack_what_a_plane_says_are_none(slide, slide_map, tmp_path, lost):
    other = pydicom.dcmread(slide)
    delattr(other, lost)
    path = slide.with_name("other.dcm")
    other.save_as(path, enforce_file_format=False)
    write_parametric_map(slide_map, tmp_path / "map.dcm", slide)
    slide.unlink()
    with pytest.raises(SlideOpenError, match="no plane of a DICOM slide") as error:
        check_source(path)
    assert "\n" not in str(error.value)


def test_a_slide_that_does_not_say_where_it_lies_is_refused(slide, slide_map, tmp_path):
    header = pydicom.dcmread(slide)
    del header.TotalPixelMatrixOriginSequence
    header.save_as(slide)
    with pytest.raises(SlideError, match="TotalPixelMatrixOriginSequence") as error:
        write_parametric_map(slide_map, tmp_path / "map.dcm", slide)
    assert "\n" not in str(error.value)
    with pytest.raises(SlideError, match="TotalPixelMatrixOriginSequence"):
        check_source(slide)


@pytest.mark.parametrize(
    ("box", "options", "message"),
    [
        (Box(0, 0, 13 * 20, 10 * 15.5), {}, "this slide's"),
        (Box(-16, 0, 13 * 16, 10 * 15.5), {}, "this slide's"),
        (Box(0, 0, 13 * 16, 10 * 15.5), {"tile_px": 0}, "tile_px"),
        (Box(0, 0, 13 * 16, 10 * 15.5), {"metadata": {"gap": math.inf}}, "JSON"),
        (Box(0, 0, 13 * 16, 10 * 15.5), {"tile_px": 40_000}, "GiB"),
    ],
)
def test_bad_arguments_are_refused(slide, slide_map, box, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_parametric_map(replace(slide_map, box=box), tmp_path / "out.dcm", slide, **options)
    assert not list(tmp_path.glob("*out.dcm*"))


def test_an_unfinished_file_is_removed(slide, slide_map, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathology.maps.pyramid.Level.tiles", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_parametric_map(slide_map, tmp_path / "out.dcm", slide)
    assert not list(tmp_path.glob("*out.dcm*"))
