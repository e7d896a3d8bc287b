"""`pathology features` on a cluster whose workers are killed, or whose disk is full."""

import os
import subprocess

import pytest

pytest.importorskip("ray")

from tests.cluster.faulty_features import WORKER_CPUS, Features, error_line, read_all
from tests.cluster.own_cluster import own_cluster


@pytest.fixture(scope="module")
def cluster():
    with own_cluster(2 * WORKER_CPUS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def module_features(tmp_path_factory):
    return Features(tmp_path_factory.mktemp("features"), 5)


@pytest.fixture
def features(module_features):
    module_features.clear()
    return module_features


@pytest.fixture
def ray(cluster):
    return ["--engine", "ray", "--address", cluster.address, "--workers", "2"]


def survived(text):
    print(f"survived: {text}")


def test_a_worker_that_is_killed_in_the_middle_of_a_slide(features, ray, tmp_path):
    features.fault("kill.7")  # of five or so for each slide
    code, said = features.run(tmp_path / "out", *ray)
    assert code == 0, said
    assert not (features.faults / "kill.7").exists()
    assert "it will be tried again" in said
    assert read_all(tmp_path / "out") == features.wanted
    done = features.batches
    code, said = features.run(tmp_path / "out")  # the same, on this machine
    assert code == 0, said
    assert features.batches == done
    features.check(tmp_path / "out")
    survived("`features` whose worker was killed in the middle of a slide")


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for less than there is to write."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_full(features, ray, small_disk):
    """Results, what is known of them, and the journal all lie on it."""
    ballast = small_disk / "ballast"
    room = 2 * max(len(data) for data in features.wanted.values())
    ballast.write_bytes(bytes(512 * 1024 - room))
    out = small_disk / "out"
    code, said = features.run(out, *ray, "--keep-going")
    assert code == 2, said
    assert "No space left on device" in error_line(said)
    found = read_all(out)
    assert len(found) < len(features.slides)
    assert all(data == features.wanted[name] for name, data in found.items())
    ballast.unlink()
    code, said = features.run(out, *ray, "--keep-going")
    assert code == 0, said
    features.check(out)
    survived(f"a disk that was full after {len(found)} of {len(features.slides)} slides")
