"""Workers of a cluster that are late, may not write, or leave with their machine."""

import threading

import pytest

pytest.importorskip("ray")

from pathology.cohort.choice import make_engine
from pathology.cohort.on_ray.attempts import Straggling
from pathology.cohort.on_ray.engine import RayEngine
from pathology.errors import OutputError
from tests.cluster.accidents import notes, wait_until_gone, waiting
from tests.cluster.faulty_cohort import Cohort
from tests.cluster.faulty_work import USUAL_S
from tests.cluster.own_cluster import SMALL, own_cluster

NAMES = [f"s{i}" for i in range(6)]


@pytest.fixture
def cohort(tmp_path):
    return Cohort(tmp_path, NAMES)


def test_a_disk_that_is_full_for_one_worker(cohort, cluster):
    cohort.fault("s1.disk")
    with pytest.raises(OutputError, match=r"s1\.bin: cannot be written: File too large"):
        cohort.run(make_engine("ray", 2, cluster.address, 1), keep_going=True)
    assert not (cohort.out / "s1.bin").exists()
    cohort.finish()
    print("survived: a file that might not grow; the run stopped, the next one finished")


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
    print("survived: a worker that slept; its slide was done once more elsewhere")


@pytest.fixture
def machines():
    """Not the cluster of all tests: it takes Ray a while to see that a machine is not there."""
    with own_cluster() as cluster:
        yield cluster


def test_a_machine_that_leaves(cohort, machines):
    """With all that works there."""
    node = machines.add_node(num_cpus=2, **SMALL)
    cohort.fault(*(f"{name}.wait" for name in NAMES[:4]))

    def leave():
        workers = waiting(cohort.faults, 4)
        machines.remove_node(node, allow_graceful=False)
        wait_until_gone(workers, 2)
        (cohort.faults / "go").touch()

    leaver = threading.Thread(target=leave)
    leaver.start()
    code, heard = cohort.run(make_engine("ray", 4, machines.address, 1))
    leaver.join()
    assert code == 0
    assert len(heard.lost) == 2
    assert len(heard.ended) == len(NAMES)
    cohort.check()
    assert sum(cohort.begun(name) for name in NAMES) == len(NAMES) + 2
    cohort.finish()
    print("survived: a machine that left with two workers; the one that stayed did their slides")
