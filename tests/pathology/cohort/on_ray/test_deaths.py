"""What Ray says of a death, in words of ours."""

import pytest

pytest.importorskip("ray")

from ray import exceptions

from pathology.cohort.on_ray.deaths import died_of


def died(text, **more):
    error = exceptions.RayActorError("00", text, **more)
    assert "\n" not in died_of(error)
    return died_of(error)


def test_want_of_memory_is_told_as_such():
    error = exceptions.OutOfMemoryError(
        "2 worker(s) were killed due to the node running low on memory.\nMore lines."
    )
    assert died_of(error).startswith("the worker ran out of memory")
    assert died("1 worker(s) were killed due to the node running low on memory.") == died_of(error)
    assert "--workers" in died_of(error)


def test_exit_codes_are_those_of_processes():
    text = "The actor died.\nWorker exits unexpectedly. Worker exits with an exit code 7."
    assert "ended with exit code 7" in died(text)


def test_machines_that_are_gone():
    assert died("The actor's node has died.\nreason: x") == "the worker's machine was lost"
    assert "taken away" in died("The node was drained", preempted=True)
    assert "could not be reached" in died_of(exceptions.ActorUnavailableError("rpc", b"0" * 16))


def test_a_signal_is_not_known_and_what_it_may_be_is_told():
    text = (
        "The actor died unexpectedly before finishing this task.\n\tactor_id: 1f\n\tpid: 42\nThe"
        " actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
        " Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of"
        " file. Some common causes include: (1) the process was killed by the OOM killer due to"
        " high memory usage, (2) ray stop --force was called, or (3) the worker crashed"
        " unexpectedly due to SIGSEGV or another unexpected error."
    )
    assert died(text).startswith("the worker's process died, most often for want of memory")
