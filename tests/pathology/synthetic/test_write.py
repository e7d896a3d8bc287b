"""Written slides: what OpenSlide sees, what they hold, and what a failure leaves behind."""

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from pathology.errors import OutputError
from pathology.slides import open_slide
from pathology.synthetic import SlideFiles, SyntheticSlideSpec, render, write, write_slide
from pathology.synthetic.pyramid import PyramidWriter

SPEC = SyntheticSlideSpec(7, (1301, 1111), tumour_fraction=0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SlideFiles:
    return write_slide(SPEC, tmp_path_factory.mktemp("slide") / "a.tif")


def test_openslide_opens_every_level(files: SlideFiles) -> None:
    for path in (files.slide, files.regions, files.evidence):
        with openslide.OpenSlide(path) as opened:
            assert opened.properties["openslide.vendor"] == "generic-tiff"
            assert opened.level_dimensions == ((1301, 1111), (650, 555), (325, 277))
            assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5)
            assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(0.5)
    with openslide.OpenSlide(files.slide) as opened:
        levels = [
            np.asarray(opened.read_region((0, 0), i, size))
            for i, size in enumerate(opened.level_dimensions)
        ]
    for level in levels:
        assert (level[..., 3] == 255).all()
        np.testing.assert_allclose(level.mean((0, 1)), levels[0].mean((0, 1)), atol=1)


@pytest.mark.parametrize("backend", ["auto", "openslide", "tifffile"])
def test_levels_are_read_where_they_lie(files: SlideFiles, backend: str) -> None:
    # By the ratio of the sides, 1301 / 325, the last column would be off by a pixel of level 0.
    with open_slide(files.slide, backend=backend) as slide:
        assert [level.downsample for level in slide.levels] == [1, 2, 4]


def test_files_hold_what_was_rendered(files: SlideFiles) -> None:
    drawn = render(SPEC, 0, 0, *SPEC.size_px)
    assert np.array_equal(tifffile.imread(files.regions), drawn.regions)
    assert np.array_equal(tifffile.imread(files.evidence), drawn.evidence)
    error = tifffile.imread(files.slide).astype(int) - drawn.rgb
    assert np.abs(error).mean() < 3
    assert np.abs(error.mean((0, 1))).max() < 0.5
    assert files.region_px == tuple(np.bincount(drawn.regions.ravel(), minlength=3))
    assert files.label == "tumour"
    with tifffile.TiffFile(files.regions) as tiff:
        assert np.array_equal(tiff.pages[1].asarray(), drawn.regions[:1110:2, :1300:2])
        assert not tiff.is_bigtiff


def test_bytes_do_not_depend_on_the_band(files: SlideFiles, tmp_path: Path) -> None:
    other = write_slide(SPEC, tmp_path / "a.tif", band=700)
    for name in ("slide", "regions", "evidence"):
        assert getattr(files, name).read_bytes() == getattr(other, name).read_bytes()


def test_progress_counts_rows(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    spec = SyntheticSlideSpec(1, (64, 1100), mpp=2.0)
    write_slide(spec, tmp_path / "a.tif", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(512, 1100), (1024, 1100), (1100, 1100)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.tif",
        "a_evidence.tif",
        "a_regions.tif",
    ]


def test_memory_does_not_grow_with_height(tmp_path: Path) -> None:
    def peak(height: int) -> int:
        tracemalloc.start()
        with PyramidWriter(tmp_path, (2048, height), 0.5, 3) as writer:
            rows = np.zeros((512, 2048, 3), np.uint8)
            for _ in range(height // 512):
                writer.add(rows)
            writer.write(tmp_path / f"{height}.tif")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1024)
    # Eight times the height; only the table of tiles may grow, by less than 100 bytes a tile.
    assert peak(16_384) < peak(2048) + 400_000


def test_missing_rows_are_noticed(tmp_path: Path) -> None:
    with PyramidWriter(tmp_path, (600, 600), 0.5, 1) as writer:
        writer.add(np.zeros((300, 600), np.uint8))
        with pytest.raises(ValueError, match="tiles only"):
            writer.write(tmp_path / "a.tif")


def test_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"a\.tif: cannot write .*No space left"):
        write_slide(SyntheticSlideSpec(1, (64, 64)), tmp_path / "a.tif")
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_no_file_under_its_name(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathology.synthetic import SyntheticSlideSpec, write_slide\n"
        "def stop(done, total):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_slide(SyntheticSlideSpec(1, (600, 1200), 2.0), sys.argv[1], progress=stop)\n"
    )
    root = Path(write.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.tif")],
        env=os.environ | {"PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tif"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(OutputError) as caught:
        write_slide(SyntheticSlideSpec(1, (64, 64)), blocker / "a.tif")
    assert "\n" not in str(caught.value)
    assert str(blocker) in str(caught.value)


def test_a_name_that_is_not_tif(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.tif"):
        write_slide(SPEC, tmp_path / "a.svs")
    with pytest.raises(ValueError, match="band"):
        write_slide(SPEC, tmp_path / "a.tif", band=0)
