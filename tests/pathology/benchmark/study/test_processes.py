"""Processes that are killed do not take a study with them, nor does a study leave any behind."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from pathology.benchmark.study.processes import in_processes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")


def half(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number < 0:
        raise ValueError("negative")
    return number / 2


def nothing():
    pass


def test_only_what_is_killed_is_lost():
    work = [(number,) for number in range(5)]
    found = dict(in_processes(half, work, 2, nothing))
    assert found == {0: 0.0, 1: 0.5, 2: 1.0, 3: None, 4: 2.0}


def test_errors_pass_and_leave_no_process():
    with pytest.raises(ValueError, match="negative"):
        list(in_processes(half, [(1,), (-1,), (2,)], 1, nothing))
    for process in multiprocessing.active_children():
        process.join(30)
    assert not multiprocessing.active_children()


def test_a_verb_ends_with_whoever_started_it():
    code = (
        "import sys, time; import pathology.cli\n"
        "pathology.cli.main = lambda: (print('on', flush=True), time.sleep(60))\n"
        "sys.argv = ['child', 'train']; import runpy\n"
        "runpy.run_module('pathology.cli.child', run_name='__main__')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout.readline() == b"on\n"
        child.stdin.close()
        assert child.wait(30) == -signal.SIGTERM
