"""A file that stays open."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pathology.slides.kept_file import MOST_OPEN, KeptFile

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def test_reads_anywhere(path: Path) -> None:
    file = KeptFile(path)
    assert file.read(300, 5) == CONTENT[300:305]
    assert file.read(len(CONTENT) - 3, 10) == CONTENT[-3:]
    assert file.read(len(CONTENT) + 3, 10) == b""


def test_reads_without_pread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread", raising=False)
    assert KeptFile(path).read(300, 5) == CONTENT[300:305]


def test_stays_open_until_closed_and_opens_again(path: Path) -> None:
    file = KeptFile(path)
    file.read(0, 1)
    moved = path.rename(path.with_name("moved"))
    assert file.read(300, 5) == CONTENT[300:305]
    file.close()
    with pytest.raises(FileNotFoundError):
        file.read(0, 1)
    moved.rename(path)
    assert file.read(300, 5) == CONTENT[300:305]


def test_is_opened_when_read_and_not_before(path: Path) -> None:
    file = KeptFile(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        file.read(0, 1)


def test_pickles_while_open(path: Path) -> None:
    file = KeptFile(path)
    file.read(0, 1)
    assert pickle.loads(pickle.dumps(file)).read(300, 5) == CONTENT[300:305]


def test_closing_under_a_read_does_no_harm(path: Path) -> None:
    file = KeptFile(path)

    def use(i: int) -> bytes:
        if i % 10 == 0:
            file.close()
        return file.read(i, 4)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(2000))) == [CONTENT[i : i + 4] for i in range(2000)]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files here")
def test_few_of_very_many_are_open(tmp_path: Path) -> None:
    files = []
    for i in range(3 * MOST_OPEN):
        path = tmp_path / str(i)
        path.write_bytes(bytes([i % 256]) * 4)
        files.append(KeptFile(path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        for i, file in enumerate(files):
            assert file.read(1, 2) == bytes([i % 256]) * 2
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + MOST_OPEN
    with ThreadPoolExecutor(8) as pool:
        reads = list(pool.map(lambda file: file.read(0, 1)[0], files * 3))
    assert reads == [i % 256 for i in range(3 * MOST_OPEN)] * 3
