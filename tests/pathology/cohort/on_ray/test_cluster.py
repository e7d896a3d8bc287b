"""Addresses of clusters, and what fits on their machines; without a cluster."""

import os
import signal
import socket
import sys
import time

import pytest

pytest.importorskip("ray")

from pathology.cohort.engine import Needs
from pathology.cohort.on_ray.cluster import room_for, settled
from pathology.cohort.on_ray.engine import RayEngine
from pathology.cohort.stopping import sigterm_as_interrupt
from pathology.errors import ClusterError, MissingExtraError

NODES = [
    {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}},
    {"Alive": True, "Resources": {"CPU": 3.0}},
    {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
]


class Ray:
    """As much of the module as is asked."""

    def __init__(self, nodes):
        self._nodes = nodes

    def nodes(self):
        return self._nodes

    def cluster_resources(self):
        alive = [node["Resources"] for node in self._nodes if node["Alive"]]
        return {name: sum(has.get(name, 0) for has in alive) for has in alive for name in has}


@pytest.mark.parametrize(
    ("needs", "count"),
    [
        (Needs(), 19),
        (Needs(cpus=2), 9),
        (Needs(cpus=4, gpus=1), 4),
        (Needs(cpus=8, gpus=1), 2),
        (Needs(cpus=1, gpus=0.1), 16),
        (Needs(cpus=0, gpus=0.1), 40),
        (Needs(cpus=32), 0),
    ],
)
def test_workers_fit_on_machines_not_between_them(needs, count):
    assert room_for(Ray(NODES), needs) == count


def test_cards_are_asked_for_where_there_are_any():
    needs = Needs(2, 1, gpus_if_any=True)
    assert settled(Ray(NODES), needs) == Needs(2, 1)
    assert settled(Ray(NODES[1:]), needs) == Needs(2)
    assert settled(Ray(NODES[1:]), Needs(2, 1)) == Needs(2, 1)  # and waits for one


@pytest.mark.parametrize("address", ["head", "http://head:6379", "head:port", ""])
def test_what_is_no_address_is_told(address):
    with pytest.raises(ValueError, match=r"must be auto or host:6379, got"):
        RayEngine(address)


def test_rays_client_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"ray://head:10001: not by Ray's client; .*job submit"):
        RayEngine("ray://head:10001")


def test_where_nobody_answers_that_is_told_at_once():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        rows = [{"slide_id": "a", "path": "a.tif"}]
        with pytest.raises(ClusterError, match=f"no cluster answers at {address}: Connection ref"):
            next(RayEngine(address).run(rows, str, Needs()))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install \"bcos-pathology\[cluster\]\""):
        next(RayEngine().run([{"slide_id": "a", "path": "a.tif"}], str, Needs()))


def test_sigterm_while_ray_begins_interrupts_the_run(monkeypatch):
    """Ray would end the process, with an exit code of its own."""
    began = []

    def init(**options):
        began.append(options)
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))  # as Ray does
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr("ray.init", init)
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_as_interrupt(), pytest.raises(KeyboardInterrupt):
        next(RayEngine().run([{"slide_id": "a", "path": "a.tif"}], str, Needs()))
    assert len(began) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_numbers_of_workers_and_tries_are_not_negative():
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        RayEngine(workers=-1)
    with pytest.raises(ValueError, match="retries must be at least 0, got -2"):
        RayEngine(retries=-2)
