"""MONAI's own datasets, loader and splitter over our slides, against our own reading."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.data import DataLoader, MaskedPatchWSIDataset, PatchWSIDataset, SlidingPatchWSIDataset
from monai.data.wsi_reader import BaseWSIReader
from monai.inferers import WSISlidingWindowSplitter
from monai.transforms import LoadImage, ScaleIntensityRanged
from numpy.typing import NDArray

from pathology.data import monai_reader
from pathology.data.monai_reader import AT_MPP, SlideReader
from pathology.errors import MissingResolutionError
from pathology.geometry import Box
from pathology.slides import MemorySlide, Slide, open_slide
from pathology.slides.resample import mean_blocks

WIDTH, HEIGHT = 768, 512


def picture(seed: int) -> NDArray[np.uint8]:
    """Pink tissue on the left half, white glass on the right."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 230, (HEIGHT // 16, WIDTH // 16, 3))
    pixels = np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)
    pixels[:, WIDTH // 2 :] = 255
    return pixels


def write(path: Path, mpp: float | None, seed: int = 0) -> str:
    with tifffile.TiffWriter(path) as tif:
        for n in (1, 4):
            options: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
            if mpp is not None:
                options |= {"resolution": (1e4 / mpp / n,) * 2, "resolutionunit": "CENTIMETER"}
            plane = mean_blocks(picture(seed), n)
            tif.write(plane, compression="zlib", subfiletype=int(n > 1), **options)
    return str(path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A slide of 0.25 and one of 0.5 um per pixel."""
    folder = tmp_path_factory.mktemp("slides")
    return [write(folder / "fine.tif", 0.25, 0), write(folder / "coarse.tif", 0.5, 1)]


@pytest.fixture(scope="module")
def slides(paths: list[str]) -> list[Slide]:
    return [open_slide(path) for path in paths]


def expected(slide: Slide, row: float, column: float, size: int, mpp: float) -> NDArray[np.uint8]:
    """``size x size`` pixels at ``mpp``, channels first, as our own reader gives them."""
    box = Box(column, row, size * mpp / slide.mpp.x, size * mpp / slide.mpp.y)
    return slide.read(box, mpp).transpose(2, 0, 1)


def test_tells_of_a_slide_by_rows_and_columns(paths: list[str]) -> None:
    reader = SlideReader()
    assert isinstance(reader, BaseWSIReader)
    slide = reader.read(paths[0])
    assert reader.get_level_count(slide) == 2
    assert [reader.get_size(slide, level) for level in (0, 1)] == [(512, 768), (128, 192)]
    assert [reader.get_downsample_ratio(slide, level) for level in (0, 1)] == [1, 4]
    assert reader.get_mpp(slide, 1) == pytest.approx((1, 1))
    assert reader.get_file_path(slide) == paths[0]
    assert reader.verify_suffix("case.mrxs")
    narrow = SlideReader(slide_mpp=(0.25, 0.4), mpp=0.8).read(paths[0])
    assert reader.get_mpp(narrow, 0) == (0.4, 0.25)
    at_mpp = SlideReader(mpp=0.8)
    assert at_mpp.get_size(narrow, AT_MPP) == (256, 240)
    assert at_mpp.get_mpp(narrow, AT_MPP) == pytest.approx((0.8, 0.8))
    assert at_mpp.get_size(narrow, 0) == (512, 768)


@pytest.mark.parametrize("mpp", [0.25, 0.5, 0.61, 3.0])
@pytest.mark.parametrize("place", [(0, 0), (37, 150), (-20, -5), (500, 760), (2000, 0)])
def test_reads_any_mpp_anywhere(slides: list[Slide], mpp: float, place: tuple[int, int]) -> None:
    slide = slides[0]
    wanted = expected(slide, *place, size=48, mpp=mpp)
    pixels, metadata = SlideReader().get_data(slide, location=place, size=(48, 48), mpp=mpp)
    np.testing.assert_array_equal(pixels, wanted)
    again, _ = SlideReader(mpp=mpp).get_data(slide, location=place, size=(48, 48))
    np.testing.assert_array_equal(again, wanted)
    assert metadata["mpp"] == pytest.approx((mpp, mpp))
    assert metadata["location"].tolist() == list(place)
    assert metadata["size"].tolist() == [48, 48]
    assert metadata["path"] == str(slide.path)


def test_a_level_is_the_stored_plane(slides: list[Slide]) -> None:
    pixels, metadata = SlideReader(level=1).get_data(slides[0])
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), mean_blocks(picture(0), 4))
    assert metadata["level"] == 1
    patch, _ = SlideReader().get_data(slides[0], location=(40, 80), size=(16, 32), level=1)
    np.testing.assert_array_equal(patch, pixels[:, 10:26, 20:52])


def test_a_level_whose_last_pixels_were_cut() -> None:
    slide = MemorySlide(picture(0)[:511, :767], 0.25, levels=(1, 4))
    pixels, _ = SlideReader(level=1).get_data(slide)
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), mean_blocks(picture(0)[:511, :767], 4))


def test_levels_that_are_no_whole_factor(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    planes = [picture(0)[:509, :763], picture(1)[:127, :190]]
    with tifffile.TiffWriter(path) as tif:
        for i, plane in enumerate(planes):
            tif.write(plane, photometric="rgb", subfiletype=int(i > 0), rowsperstrip=16)
    reader = SlideReader(slide_mpp=0.25)
    slide = reader.read(path)
    for level, plane in enumerate(planes):
        pixels, _ = reader.get_data(slide, level=level)
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), plane)


def test_pixels_of_unequal_sides() -> None:
    slide = MemorySlide(picture(0), (0.25, 0.5))
    reader = SlideReader()
    native, _ = reader.get_data(slide, location=(10, 20), size=(30, 40), mpp=(0.5, 0.25))
    np.testing.assert_array_equal(native, picture(0)[10:40, 20:60].transpose(2, 0, 1))
    square, _ = reader.get_data(slide, location=(10, 20), size=(30, 30), mpp=0.5)
    np.testing.assert_array_equal(square, slide.read(Box(20, 10, 60, 30), 0.5).transpose(2, 0, 1))


def test_several_slides_at_one_mpp(paths: list[str], slides: list[Slide]) -> None:
    reader = SlideReader(mpp=0.75)
    both = reader.read(paths)
    pixels, metadata = reader.get_data(both, location=(8, 16), size=(32, 32))
    wanted = [expected(slide, 8, 16, 32, 0.75) for slide in slides]
    np.testing.assert_array_equal(pixels, np.concatenate(wanted))
    assert metadata["path"] == paths
    with pytest.raises(ValueError, match="several sizes cannot be joined"):
        reader.get_data(both)


def test_the_whole_slide(slides: list[Slide]) -> None:
    pixels = SlideReader().get_wsi_at_mpp(slides[0], 1.5)
    whole = slides[0].read(Box(0, 0, WIDTH, HEIGHT), 1.5)
    np.testing.assert_array_equal(pixels, whole.transpose(2, 0, 1))


def test_types_and_places_of_the_result(slides: list[Slide]) -> None:
    wanted = expected(slides[0], 5, 6, 32, 0.5)
    request = {"location": (5, 6), "size": (32, 32), "mpp": 0.5}
    last, metadata = SlideReader(channel_dim=-1, dtype=np.float32).get_data(slides[0], **request)
    assert (last.dtype, last.shape, metadata["original_channel_dim"]) == (
        np.float32,
        (32, 32, 3),
        2,
    )
    np.testing.assert_array_equal(last, wanted.transpose(1, 2, 0))
    tensor, _ = SlideReader(dtype=torch.float16).get_data(slides[0], **request)
    assert tensor.dtype == torch.float16
    np.testing.assert_array_equal(tensor.numpy(), wanted)
    two, _ = SlideReader(dtype=torch.uint8).get_data([slides[0], slides[0]], **request)
    assert isinstance(two, torch.Tensor)
    assert two.shape == (6, 32, 32)


def test_by_objective_power(tmp_path: Path, slides: list[Slide]) -> None:
    path = tmp_path / "slide.svs"
    description = "Aperio Image Library v11.2.1 \r\n768x512 (64x64) JPEG/RGB|AppMag = 40|MPP = 0.25"
    layout = {"photometric": "ycbcr", "compression": "jpeg", "tile": (64, 64), "metadata": None}
    tifffile.imwrite(path, picture(0), description=description, **layout)
    reader = SlideReader(power=10)
    slide = reader.read(path)
    assert reader.get_power(slide, AT_MPP) == 10
    assert SlideReader().get_power(slide, 0) == 40
    pixels, _ = reader.get_data(slide, location=(3, 7), size=(32, 32))
    np.testing.assert_array_equal(pixels, expected(slide, 3, 7, 32, 1.0))
    with pytest.raises(ValueError, match="does not tell its objective's power; ask for an mpp"):
        reader.get_data(slides[0])


def test_opens_as_told(tmp_path: Path) -> None:
    path = write(tmp_path / "slide.tif", None)
    with pytest.raises(MissingResolutionError):
        SlideReader().read(path)
    assert SlideReader(slide_mpp=0.3).read(path).mpp == (0.3, 0.3)
    assert SlideReader().read(path, mpp=0.4, backend="tifffile").mpp == (0.4, 0.4)
    with pytest.raises(Exception, match="no colour profile"):
        SlideReader(slide_mpp=0.3, colour="srgb").read(path)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mpp": 0.5, "power": 20}, "only one of mpp and power"),
        ({"mpp": 0.5, "level": 0}, r"give level=-1 \(AT_MPP\) or none"),
        ({"level": AT_MPP}, "give an mpp or a power"),
        ({"mode": "RGBA"}, "read as RGB"),
    ],
)
def test_readers_that_cannot_be(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SlideReader(**options)


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({"mpp": 0.5, "level": 1}, "only one of"),
        ({"level": 7}, "has levels 0 to 1, not 7"),
        ({"level": AT_MPP}, "for readers that were made for an mpp"),
        ({"mpp": 0}, "mpp must be finite"),
        ({"mpp": float("nan")}, "mpp must be finite"),
        ({"size": (0, 5)}, "at least 1 px"),
        ({"location": (4, 5)}, "needs a size"),
        ({"mode": "RGBA"}, "read as RGB"),
    ],
)
def test_requests_that_cannot_be_met(
    slides: list[Slide], request_: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        SlideReader().get_data(slides[0], **request_)


def samples(paths: list[str]) -> list[dict[str, Any]]:
    places = [(0, 0), (37, 150), (-20, 300), (480, 700)]
    return [
        {"image": path, "location": list(place), "label": i}
        for i, path in enumerate(paths)
        for place in places
    ]


def at_mpp(paths: list[str], **options: Any) -> PatchWSIDataset:
    options = {"patch_size": 32, "patch_level": AT_MPP, "center_location": False} | options
    return PatchWSIDataset(samples(paths), **({"reader": SlideReader(mpp=0.75)} | options))


@pytest.mark.parametrize(
    "reader", [{"reader": SlideReader(mpp=0.75)}, {"reader": SlideReader, "mpp": 0.75}]
)
def test_patches_at_an_mpp(paths: list[str], slides: list[Slide], reader: dict[str, Any]) -> None:
    dataset = at_mpp(paths, **reader)
    for i, sample in enumerate(samples(paths)):
        item = dataset[i]
        wanted = expected(slides[sample["label"]], *sample["location"], size=32, mpp=0.75)
        np.testing.assert_array_equal(np.asarray(item["image"]), wanted)
        assert item["label"] == sample["label"]
        assert item["image"].meta["path"] == sample["image"]


def test_a_slide_is_opened_once(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counted(path: Path, **options: Any) -> Slide:
        opened.append(path)
        return open_slide(path, **options)

    monkeypatch.setattr(monai_reader, "open_slide", counted)
    dataset = at_mpp(paths)
    for _ in range(3):
        for i in range(len(dataset)):
            dataset[i]
    assert opened == [Path(path) for path in paths]


def test_samples_with_size_and_level_of_their_own(paths: list[str], slides: list[Slide]) -> None:
    data = [{"image": paths[0], "location": [8, 12], "size": 16, "level": 1, "label": 0}]
    dataset = PatchWSIDataset(data, reader=SlideReader(), center_location=False)
    plane = mean_blocks(picture(0), 4).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.asarray(dataset[0]["image"]), plane[:, 2:18, 3:19])


def test_the_level_that_monai_assumes_is_refused(paths: list[str]) -> None:
    # With MONAI's readers this returns level 0, another field of view than asked for.
    with pytest.raises(ValueError, match=r"made for mpp=\(0.75, 0.75\), but asked for level 0"):
        at_mpp(paths, patch_level=None)[0]
    with pytest.raises(ValueError, match="AT_MPP"):
        at_mpp(paths, patch_level=None, reader=SlideReader, mpp=0.75)
    with pytest.raises(ValueError, match="AT_MPP"):
        SlidingPatchWSIDataset([{"image": paths[0]}], 32, reader=SlideReader(mpp=0.75))


def test_transforms(paths: list[str]) -> None:
    scaled = at_mpp(paths, transform=ScaleIntensityRanged(["image"], 0, 255, 0, 1))[1]["image"]
    plain = np.asarray(at_mpp(paths)[1]["image"]).astype(np.float32)
    np.testing.assert_allclose(np.asarray(scaled), plain / 255, atol=1e-6)


def test_sliding_windows_cover_the_slide(paths: list[str], slides: list[Slide]) -> None:
    dataset = SlidingPatchWSIDataset(
        [{"image": path} for path in paths],
        patch_size=64,
        patch_level=AT_MPP,
        mask_level=AT_MPP,
        reader=SlideReader(mpp=0.5),
    )
    # 128 level-0 pixels of the first slide make a patch, 64 of the second.
    assert len(dataset) == 4 * 6 + 8 * 12
    for i in (0, 7, 23, 24, 24 + 13, len(dataset) - 1):
        item = dataset[i]["image"]
        slide = slides[int(i >= 24)]
        step = 128 if i < 24 else 64
        k, across = (i, 6) if i < 24 else (i - 24, 12)
        row, column = k // across * step, k % across * step
        assert item.meta["location"].tolist() == [row, column]
        np.testing.assert_array_equal(np.asarray(item), expected(slide, row, column, 64, 0.5))
        assert item.meta["mask_size"].tolist() == ([256, 384] if i < 24 else [512, 768])


def test_masked_patches_lie_on_tissue(paths: list[str], slides: list[Slide]) -> None:
    dataset = MaskedPatchWSIDataset(
        [{"image": paths[0]}],
        patch_size=16,
        patch_level=AT_MPP,
        mask_level=1,
        reader=SlideReader(mpp=0.5),
    )
    centres = np.array([sample["location"] for sample in dataset.data]) + 16
    assert len(dataset) > 100
    assert centres.min() >= 0
    assert centres[:, 0].max() < HEIGHT
    assert centres[:, 1].max() < WIDTH // 2  # the right half is glass
    place = dataset.data[50]["location"]
    np.testing.assert_array_equal(
        np.asarray(dataset[50]["image"]), expected(slides[0], *place, size=16, mpp=0.5)
    )


def read_all(dataset: PatchWSIDataset, **options: Any) -> NDArray[np.uint8]:
    return np.concatenate(
        [np.asarray(b["image"]) for b in DataLoader(dataset, batch_size=2, **options)]
    )


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_workers_read_the_same(paths: list[str]) -> None:
    dataset = at_mpp(paths)
    wanted = read_all(dataset, num_workers=0)  # and every handle is open
    got = read_all(dataset, num_workers=2, multiprocessing_context="fork")
    np.testing.assert_array_equal(got, wanted)


def test_datasets_are_pickled_with_open_slides(paths: list[str]) -> None:
    # As spawned workers get them; starting one takes seconds, its imports nearly all of them.
    dataset = SlidingPatchWSIDataset([{"image": paths[0]}], 64, reader=SlideReader())
    wanted = np.asarray(dataset[3]["image"])
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(np.asarray(copy[3]["image"]), wanted)


# MONAI makes every reader it has; one wants NVIDIA's codecs where pydicom is installed.
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
def test_load_image(paths: list[str], slides: list[Slide]) -> None:
    image = LoadImage(reader=SlideReader(mpp=2.0), ensure_channel_first=True, dtype=np.uint8)(
        paths[0]
    )
    whole = slides[0].read(Box(0, 0, WIDTH, HEIGHT), 2.0)
    np.testing.assert_array_equal(np.asarray(image), whole.transpose(2, 0, 1))


# MONAI warns about every reader but its own two.
@pytest.mark.filterwarnings("ignore:WSIReader with pathology backend")
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_sliding_window_splitter(paths: list[str], slides: list[Slide], overlap: float) -> None:
    splitter = WSISlidingWindowSplitter(
        patch_size=64, overlap=overlap, reader=SlideReader, level=AT_MPP, mpp=0.75
    )
    patches = list(splitter(paths[0]))
    rows, columns = (round(side * 0.25 / 0.75) for side in (HEIGHT, WIDTH))
    step = round(64 * (1 - overlap))
    grid = [(r, c) for r in range(0, rows, step) for c in range(0, columns, step)]
    if not overlap:
        assert [location for _, location in patches] == grid
    for patch, (row, column) in patches:
        wanted = expected(slides[0], round(row * 3), round(column * 3), 64, 0.75)
        np.testing.assert_array_equal(np.asarray(patch)[0], wanted)
    with pytest.raises(ValueError, match="AT_MPP"):
        next(iter(WSISlidingWindowSplitter(64, reader=SlideReader(mpp=0.75))(paths[0])))
