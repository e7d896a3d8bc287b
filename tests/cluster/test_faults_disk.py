"""`pathology tile` on a cluster, with results on a disk that is full."""

import subprocess

import pytest

pytest.importorskip("ray")

from tests.cluster.faulty_tiles import FaultyTiles, checked_records, error_line
from tests.made_cohort import results_in

ROOM = 256 * 1024  # bytes; what is written takes less


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full(slides, cluster, tmp_path, small_disk):
    """Results, what is known of them, and the journal all lie on it."""
    tiles = FaultyTiles(slides, tmp_path, cluster.address, str(small_disk / "out"))
    size = max(sum(map(len, slides.made_of(name).values())) for name in slides.names)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(ROOM - 3 * size))
    code, said = tiles.run("--keep-going")
    assert code == 2, said
    assert "No space left on device" in error_line(said)
    done = checked_records(tiles.folder, slides)
    assert len(done) < len(slides.names)
    # What there is of others is whole, too; a page of all is of those that are there.
    found = results_in(tiles.folder)
    found.pop("quality.html", None)
    assert found.items() <= slides.wanted.items()
    ballast.unlink()
    code, said = tiles.run("--keep-going")
    assert code == 0, said
    assert said.count("made before with the same settings") == len(done)
    tiles.check()
    print(f"survived: a disk that was full after {len(done)} of {len(slides.names)} slides")
