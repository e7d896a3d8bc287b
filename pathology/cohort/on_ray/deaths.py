"""Why a worker on a cluster died, in words."""

import re

from pathology.cohort.failures import ended_by


def died_of(error: Exception) -> str:
    """In one line, what Ray says in many."""
    from ray.exceptions import ActorUnavailableError, OutOfMemoryError

    text = str(error)
    if isinstance(error, OutOfMemoryError) or "running low on memory" in text:
        return (
            "the worker ran out of memory: its machine had too little left and Ray ended it; use"
            " fewer workers on a machine (--workers), or machines with more memory"
        )
    if isinstance(error, ActorUnavailableError):
        return "the worker could not be reached"
    if getattr(error, "preempted", False):
        return "the worker's machine was taken away by its owner"
    if re.search(r"node (was |has )?(died|dead|terminated)|node failure", text, re.IGNORECASE):
        return "the worker's machine was lost"
    if code := re.search(r"exit code[: ]+(-?\d+)|exit_code[=: ]+(-?\d+)", text):
        return ended_by(int(code.group(1) or code.group(2)))
    return "the worker's process died, most often for want of memory or by a damaged file"
