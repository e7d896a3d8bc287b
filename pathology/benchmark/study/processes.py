"""Work in processes of their own, none of which is left behind."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_processes(
    function: Callable[..., Result],
    work: Sequence[tuple[Any, ...]],
    jobs: int,
    begin: Callable[[], None],
) -> Iterator[tuple[int, Result | None]]:
    """Call ``function`` for each piece of work; yields its place in ``work`` and what came of it.

    Where the system kills a process, as it does when memory runs out, the rest goes on one at a
    time, and only a piece whose process is killed then is given up: its result is None.

    Args:
        function: at the top of a module.
        work: arguments of each call.
        jobs: processes at a time.
        begin: called first in each process.
    """
    left = list(range(len(work)))
    before = set(active_children())
    while left:
        with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (begin,)) as pool:
            futures = {pool.submit(function, *work[i]): i for i in left}
            is_broken = False
            try:
                for future in as_completed(futures):
                    if isinstance(future.exception(), BrokenProcessPool):
                        is_broken = True
                        continue
                    left.remove(futures[future])
                    yield futures[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in set(active_children()) - before:
                    process.terminate()
                raise
        if is_broken:
            if jobs == 1:  # in order, so that it was the first that is left
                yield left.pop(0), None
            jobs = 1


def _begin(begin: Callable[[], None]) -> None:
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    begin()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
