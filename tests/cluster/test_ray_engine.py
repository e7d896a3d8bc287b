"""Actors of a real cluster: what they tell, machines that lack something, and being stopped."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("ray")

from pathology.cohort.each_slide import each_slide
from pathology.cohort.engine import Needs
from pathology.cohort.events import Counted, Ended, Started
from pathology.cohort.on_ray import engine as engine_module
from pathology.cohort.on_ray.engine import RayEngine
from pathology.cohort.on_ray.installed import installed
from pathology.errors import ClusterError, SlideOpenError
from tests.cluster.accidents import wait_until_gone, waiting
from tests.cluster.faulty_work import Halves, write_slides
from tests.pathology.cohort.trouble import Trouble


def rows(*names):
    return [{"slide_id": name, "path": f"/slides/{name}.tif"} for name in names]


def run(engine, names, work, needs=None):
    with closing(engine.run(rows(*names), work, needs or Needs())) as events:
        return list(events)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_every_slide_starts_and_ends_once_while_some_workers_never_come(cluster, tmp_path):
    """Five are asked for, and there is room for two; there is no graphics card, either."""
    names = ["count 5", "a torch", "b slow", "refuse", "bug", "odd", "count 7", "c slow"]
    needs = Needs(gpus=1, gpus_if_any=True)
    events = run(RayEngine(cluster.address, 5), names, Trouble(tmp_path), needs)
    for kind in (Started, Ended):
        assert sorted(event.index for event in of(kind, events)) == [*range(len(names))]
    ended = {event.index: event for event in of(Ended, events)}
    for index in (0, 2, 6, 7):
        name, process = ended[index].result.split(": done by ")
        assert name == names[index]
        assert ended[index].worker.endswith(f":{process}")
    assert len({event.worker for event in events}) <= 2
    assert ended[1].result == "a torch: False 1"  # one thread each, as workers of one machine have
    # What work raises is its slide's outcome and is not tried again.
    assert type(ended[3].result) is SlideOpenError
    assert str(ended[3].result) == "/slides/refuse.tif: is no slide"
    assert "trouble.py" in ended[4].result.__notes__[0]
    assert str(ended[5].result) == "one and 2"
    assert {event.tries for event in ended.values()} == {1}
    counted = Counter()
    for event in of(Counted, events):
        counted[event.index] += event.tiles
    assert counted == {0: 5, 6: 7}
    for index in range(len(names)):
        about = [type(event) for event in events if event.index == index]
        assert (about[0], about[-1]) == (Started, Ended)


def test_there_are_as_many_workers_as_there_is_room_for(cluster, tmp_path):
    work = Halves(tmp_path, tmp_path)
    slides = write_slides(tmp_path / "slides", ["a", "b", "c"])
    for row in slides:
        (tmp_path / f"{row['slide_id']}.wait").touch()
    began = set()
    with closing(RayEngine(cluster.address, 0).run(slides, work, Needs())) as events:
        for event in events:
            if isinstance(event, Started):
                began.add(event.worker)
                if len(began) == 2:
                    waiting(tmp_path, 2)
                    (tmp_path / "go").touch()
    assert len(began) == 2


def test_sigterm_ends_a_runs_workers_and_leaves_nothing_half_written(cluster, tmp_path):
    work = Halves(tmp_path, tmp_path)
    slides = write_slides(tmp_path / "slides", ["a", "b", "c"])
    for row in slides:
        (tmp_path / f"{row['slide_id']}.sleep").touch()
    workers, halves = [], []

    def end():
        workers.extend(waiting(tmp_path, 2, "sleeps"))
        halves.extend(tmp_path.glob(".*.part"))
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(KeyboardInterrupt):
        each_slide(pd.DataFrame(slides), work, "halving", engine=RayEngine(cluster.address, 2))
    ending.join()
    wait_until_gone(workers)
    assert (len(workers), len(halves)) == (2, 2)
    assert list(tmp_path.glob(".*.part")) == []
    assert list(tmp_path.glob("*.bin")) == []


def test_workers_have_the_clock_that_the_run_was_given(cluster, tmp_path, monkeypatch):
    """It is set where the run is begun, not where the cluster was."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    (ended,) = of(Ended, run(RayEngine(cluster.address, 1), ["clock"], Trouble(tmp_path)))
    assert ended.result == "1234567890"


def test_nothing_waits_for_machines_for_ever(cluster, tmp_path):
    engine = RayEngine(cluster.address, 1, patience_s=0.5)
    with pytest.raises(ClusterError) as caught:
        run(engine, "a", Trouble(tmp_path), Needs(cpus=1, gpus=2))
    assert str(caught.value).startswith(
        "no worker within 0.5 s: each needs 1 CPU and 2 GPUs; there is 1 machine with 2 CPUs ("
    )
    assert "0 GPUs (0 free)" in str(caught.value)


def test_a_machine_with_other_versions_is_refused(cluster, tmp_path, monkeypatch):
    """What is installed there could write other numbers."""
    here = installed() | {"place": "another", "timm": "0.1", "bcos-pathology": "7 (source x)"}
    monkeypatch.setattr(engine_module, "installed", lambda: here)
    with pytest.raises(ClusterError) as caught:
        run(RayEngine(cluster.address, 1), "a", Trouble(tmp_path))
    told = str(caught.value)
    assert f"timm {installed()['timm']} rather than 0.1" in told
    assert f"bcos-pathology {installed()['bcos-pathology']} rather than 7 (source x)" in told
    assert "torch" not in told
    assert "install the same" in told
    assert Trouble(tmp_path).tried() == []


def test_work_that_machines_do_not_have_is_told_in_one_line(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("class Work:\n    def __call__(self, row): return ''\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    with pytest.raises(ClusterError, match="cannot load the work: ModuleNotFoundError: No module"):
        run(RayEngine(cluster.address, 1), "a", only_here.Work())


def alone(folder: Path) -> None:
    """A run with a Ray of its own."""
    import ray

    before = signal.getsignal(signal.SIGTERM)
    events = run(RayEngine(None, 1), ["nice", "memory once"], Trouble(folder))
    assert [event.tries for event in of(Ended, events)] == [1, 2]
    # Not behind whatever else the machine does, where Ray would have it.
    assert of(Ended, events)[0].result == str(os.nice(0))
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_private_ray_ends_with_its_run(tmp_path):
    # In a process of its own, since Ray keeps settings that it was begun with: behind it, the
    # cluster of the other tests would not take workers.
    module = "tests.cluster.test_ray_engine"
    program = f"import pathlib, sys, {module} as own; own.alone(pathlib.Path(sys.argv[1]))"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 0)
