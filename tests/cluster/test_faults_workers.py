"""Workers of a cluster that die, are late, or meet with slides that are none."""

import os
import signal
import threading

import pytest

pytest.importorskip("ray")

from pathology.cohort.attempts import Straggling
from pathology.cohort.choice import make_engine
from pathology.cohort.ray_actors import RayEngine
from pathology.errors import OutputError, SlideOpenError
from tests.cluster.faulty_cohort import Cohort
from tests.cluster.faulty_work import USUAL_S, notes, wait_until_gone, waiting
from tests.cluster.own_cluster import own_cluster

NAMES = [f"s{i}" for i in range(6)]


@pytest.fixture(scope="module")
def cluster():
    with own_cluster() as cluster:
        yield cluster


@pytest.fixture
def engine(cluster):
    """Two workers of the cluster."""
    return make_engine("ray", 2, cluster.address, 1)


@pytest.fixture
def cohort(tmp_path):
    return Cohort(tmp_path, NAMES)


def survived(text):
    print(f"survived: {text}")


def test_a_worker_that_is_killed_in_the_middle_of_a_slide(cohort, engine):
    cohort.fault("s2.wait")

    def kill():
        os.kill(waiting(cohort.faults)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    code, heard = cohort.run(engine)
    killer.join()
    assert code == 0
    assert [event.index for event in heard.lost] == [2]
    assert len(heard.ended) == len(NAMES)
    cohort.check()
    assert [cohort.begun(name) for name in NAMES] == [1, 1, 2, 1, 1, 1]
    cohort.finish()
    assert [cohort.begun(name) for name in NAMES] == [1, 1, 2, 1, 1, 1]
    survived("a worker that was killed in the middle of a slide; its slide was done once more")


def test_the_killer_of_processes_that_take_too_much_memory(cohort, engine):
    """It sends signal 9; a slide that takes too much each time has failed, others have not."""
    cohort.fault("s0.kill", "s4.always-kill")
    code, heard = cohort.run(engine, keep_going=True)
    assert code == 3
    assert sorted(event.index for event in heard.lost) == [0, 4]
    assert list(cohort.failed) == ["s4"]
    assert "tried 2 times" in cohort.failed["s4"]
    assert "memory" in cohort.failed["s4"]
    cohort.check(missing=("s4",))
    assert cohort.begun("s4") == 2
    (cohort.faults / "s4.always-kill").unlink()
    cohort.finish()
    survived("two workers killed for want of memory at one slide, one at another")


def test_memory_that_cannot_be_had(cohort, engine):
    cohort.fault("s1.memory")
    code, _ = cohort.run(engine, keep_going=True)
    assert code == 3
    assert list(cohort.failed) == ["s1"]
    assert "MemoryError" in cohort.failed["s1"]
    cohort.check(missing=("s1",))
    cohort.finish()
    survived("a slide for which there was no memory; the next run did it")


def test_a_corrupt_slide_among_good_ones(tmp_path, engine):
    cohort = Cohort(tmp_path, NAMES, corrupt=("s3",))
    code, _ = cohort.run(engine, keep_going=True)
    assert code == 3
    slide = tmp_path / "slides" / "s3.tif"
    assert cohort.failed == {"s3": f"{slide}: is no slide"}
    cohort.check(missing=("s3",))
    assert cohort.begun("s3") == 1  # it would be corrupt again
    with pytest.raises(SlideOpenError, match=r"s3\.tif: is no slide"):
        cohort.run(engine)
    slide.write_bytes(b"slides3")
    cohort.finish()
    survived("a corrupt slide; the others were done, and it was when it was whole again")


def test_a_disk_that_is_full_for_one_worker(cohort, engine):
    cohort.fault("s1.disk")
    with pytest.raises(OutputError, match=r"s1\.bin: cannot be written: File too large"):
        cohort.run(engine, keep_going=True)
    assert not (cohort.out / "s1.bin").exists()
    cohort.finish()
    survived("a file that might not grow; the run stopped, the next one finished")


def test_a_worker_that_is_late(cohort, cluster):
    """Nobody waits for it: its slide is done once more elsewhere, and it is stopped."""
    cohort.fault("s0.sleep")
    engine = RayEngine(cluster.address, 2, straggling=Straggling(floor_s=50 * USUAL_S))
    code, heard = cohort.run(engine)
    assert code == 0
    assert len(heard.ended) == len(NAMES)
    cohort.check()
    assert cohort.begun("s0") == 2
    assert notes(cohort.faults, "ended").count("s0") == 1
    wait_until_gone(waiting(cohort.faults, how="sleeps"))
    assert list(cohort.out.rglob("*.part")) == []  # it was let tidy up
    cohort.finish()
    survived("a worker that slept; its slide was done once more elsewhere")


def test_a_machine_that_leaves(cohort, cluster):
    """With all that works there."""
    node = cluster.add_node(num_cpus=2)
    cohort.fault(*(f"{name}.wait" for name in NAMES[:4]))

    def leave():
        workers = waiting(cohort.faults, 4)
        cluster.remove_node(node, allow_graceful=False)
        wait_until_gone(workers, 2)
        (cohort.faults / "go").touch()

    leaver = threading.Thread(target=leave)
    leaver.start()
    code, heard = cohort.run(make_engine("ray", 4, cluster.address, 1))
    leaver.join()
    assert code == 0
    assert len(heard.lost) == 2
    assert len(heard.ended) == len(NAMES)
    cohort.check()
    assert sum(cohort.begun(name) for name in NAMES) == len(NAMES) + 2
    cohort.finish()
    survived("a machine that left with two workers; their slides were done on the one that stayed")
