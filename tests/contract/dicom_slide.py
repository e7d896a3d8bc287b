"""A whole slide as DICOM, made by pydicom alone: one plane, not compressed, and where it lies."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

TILE = 64


def write_dicom_slide(
    path: Path,
    pixels: NDArray[np.uint8],
    mpp: tuple[float, float],
    *,
    origin_mm: tuple[float, float] = (20.0, 40.0),
    orientation: tuple[float, ...] = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0),
    kind: str = "VOLUME",
    series: str | None = None,
) -> Dataset:
    """``(height, width, 3)`` pixels as a file; by default as scanners lay a slide, on its side."""
    height, width, _ = pixels.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.pad(pixels, ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0)))
    tiles = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)

    slide = Dataset()
    slide.file_meta = FileMetaDataset()
    slide.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slide.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    slide.SOPInstanceUID = generate_uid()
    slide.StudyInstanceUID = generate_uid()
    slide.SeriesInstanceUID = series or generate_uid()
    slide.FrameOfReferenceUID = generate_uid()
    slide.PositionReferenceIndicator = "SLIDE_CORNER"
    slide.Modality = "SM"
    slide.Manufacturer = slide.ManufacturerModelName = "made up"
    slide.DeviceSerialNumber = slide.SoftwareVersions = "1"
    slide.PatientName, slide.PatientID = "Made^Up", "P1"
    slide.PatientBirthDate = slide.PatientSex = slide.AccessionNumber = ""
    slide.StudyID, slide.StudyDate, slide.StudyTime = "1", "20260101", "120000"
    slide.SeriesNumber = slide.InstanceNumber = 1
    slide.ContainerIdentifier = "S1"
    slide.ContainerTypeCodeSequence = []
    slide.IssuerOfTheContainerIdentifierSequence = []
    slide.SpecimenDescriptionSequence = [_specimen()]
    slide.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    slide.LossyImageCompression = "00"
    slide.SamplesPerPixel, slide.PlanarConfiguration = 3, 0
    slide.PhotometricInterpretation = "RGB"
    slide.BitsAllocated = slide.BitsStored = 8
    slide.HighBit, slide.PixelRepresentation = 7, 0
    slide.Rows = slide.Columns = TILE
    slide.NumberOfFrames = rows * columns
    slide.TotalPixelMatrixRows, slide.TotalPixelMatrixColumns = height, width
    slide.TotalPixelMatrixFocalPlanes = 1
    slide.DimensionOrganizationType = "TILED_FULL"
    slide.ImageOrientationSlide = list(orientation)
    slide.TotalPixelMatrixOriginSequence = [_origin(*origin_mm)]
    slide.ImagedVolumeWidth = width * mpp[0] / 1000
    slide.ImagedVolumeHeight = height * mpp[1] / 1000
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [mpp[1] / 1000, mpp[0] / 1000]
    measures.SliceThickness = 0.001
    shared.PixelMeasuresSequence = [measures]
    slide.SharedFunctionalGroupsSequence = [shared]
    path_item = Dataset()
    path_item.OpticalPathIdentifier = "1"
    slide.OpticalPathSequence = [path_item]
    slide.NumberOfOpticalPaths = 1
    slide.PixelData = np.ascontiguousarray(tiles).tobytes()
    slide.save_as(path, enforce_file_format=True)
    return slide


def _specimen() -> Dataset:
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "S1", generate_uid()
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    return specimen


def _origin(x: float, y: float) -> Dataset:
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = x
    origin.YOffsetInSlideCoordinateSystem = y
    origin.ZOffsetInSlideCoordinateSystem = 0.0
    return origin
