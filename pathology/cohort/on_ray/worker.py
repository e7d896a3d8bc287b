"""What runs on a machine of the cluster: an actor's life. The driver's side is ``engine``."""

import ctypes
import os
import pickle
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pathology.cohort.counting import listening
from pathology.cohort.events import Row, Work
from pathology.cohort.failures import portable
from pathology.cohort.on_ray.installed import differences, installed
from pathology.cohort.worker import worker_name
from pathology.errors import PathologyError


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says when it is there.

    Args:
        worker: its name.
        node: its machine, as Ray knows it.
        trouble: why it cannot be used, in words; empty when it can.
    """

    worker: str
    node: str
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a try.

    Args:
        result: the line about the slide, or what went wrong.
        seconds: that it took.
        tiles: worked on that were not told of yet.
        waited_s: for tiles, and not told of yet.
    """

    result: str | Exception
    seconds: float
    tiles: int
    waited_s: float


class _Stopped(BaseException):
    """Raised in the middle of work that is not wanted any more; no Exception, so it passes."""


class RayWorker:
    """Holds the work, and so whatever work has loaded, for as many slides as it is given.

    ``counted`` and ``stop`` run beside ``do``; none of them in the main thread, which is Ray's.

    Args:
        folder: that the driver was started in, for paths that are relative to it.
    """

    def __init__(self, folder: str) -> None:
        # Elsewhere they would be found, or written, in some folder of Ray's.
        os.chdir(folder if Path(folder).is_dir() else os.sep)
        self._work: Work | None = None
        self._lock = threading.Lock()
        self._tiles, self._waited_s = 0, 0.0
        self._thread: int | None = None  # that works on a slide
        self._meters = _Meters()

    def hello(self, pickled: bytes, versions: Mapping[str, str]) -> Hello:
        """Unpickle the work, if this machine has the driver's versions of what decides numbers."""
        import ray

        name, node = worker_name(), ray.get_runtime_context().get_node_id()
        other = differences(versions, installed())
        if other:
            return Hello(name, node, f"{socket.gethostname()} has {other}")
        try:
            self._work = pickle.loads(pickled)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            return Hello(name, node, f"{socket.gethostname()} cannot load the work: {why}")
        return Hello(name, node)

    def do(self, row: Row) -> Done:
        """Work on a slide."""
        assert self._work is not None
        result: str | Exception
        began = time.monotonic()
        try:
            with self._lock:
                self._thread = threading.get_ident()
            try:
                with listening(self._count):
                    result = self._work(row)
            finally:
                with self._lock:
                    self._thread = None
        except _Stopped:
            result = PathologyError("was stopped")  # nobody waits for it
        except Exception as error:
            result = portable(error)
        seconds = time.monotonic() - began
        self._meters.ended(isinstance(result, str))
        return Done(result, seconds, *self.counted())

    def counted(self) -> tuple[int, float]:
        """Tiles, and seconds waited for them, since this was last asked."""
        with self._lock:
            counts = self._tiles, self._waited_s
            self._tiles, self._waited_s = 0, 0.0
        return counts

    def stop(self) -> None:
        """Leave the slide, after removing what is half written.

        Ray's main thread never gets to answer a signal, so work is told where it stands. A library
        that it waits in is not left before it returns; the driver does not wait for ever.
        """
        with self._lock:
            if self._thread is not None:
                thread = ctypes.c_ulong(self._thread)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_Stopped))

    def _count(self, tiles: int, waited_s: float) -> None:
        with self._lock:
            self._tiles += tiles
            self._waited_s += waited_s
        self._meters.counted(tiles, waited_s)


class _Meters:
    """The same for the Ray dashboard, and for a Prometheus that reads Ray's metrics."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        self._tiles = Counter("pathology_tiles", "Tiles worked on.")
        self._waited = Counter("pathology_waited_seconds", "Seconds waited for tiles to be read.")
        self._done = Counter("pathology_slides_done", "Slides that are done.")
        self._failed = Counter("pathology_slides_failed", "Slides that failed.")

    def counted(self, tiles: int, waited_s: float) -> None:
        if tiles:
            self._tiles.inc(tiles)
        if waited_s > 0:
            self._waited.inc(waited_s)

    def ended(self, well: bool) -> None:
        (self._done if well else self._failed).inc()
