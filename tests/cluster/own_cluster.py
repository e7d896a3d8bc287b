"""A Ray cluster of a test's own: nobody finds it who was not given its address."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SMALL = {"include_dashboard": False, "object_store_memory": 80 * 2**20}


@contextmanager
def own_cluster(
    cpus: int = 2, environment: Mapping[str, str] | None = None, **head: Any
) -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` whose head has ``cpus`` processors, until the block ends.

    Args:
        cpus: of the head.
        environment: further variables for its workers, and for this process meanwhile.
        head: further arguments of its head.
    """
    import ray
    from ray.cluster_utils import Cluster

    from pathology.cohort.on_ray.cluster import _token

    # Short: the names of sockets in it may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    variables = {
        "RAY_TMPDIR": str(folder),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # One for the process, as Ray keeps the first; not one in the user's home.
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or _token(),
        "RAY_worker_niceness": "0",  # 15 else, which waits for whatever else there is
        "RAY_raylet_start_wait_time_s": "240",  # the machine may be busy
        "OMP_NUM_THREADS": "1",
        **(environment or {}),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    answer = signal.getsignal(signal.SIGTERM)  # which Ray takes over
    cluster = None
    try:
        cluster = Cluster()
        node = cluster.add_node(wait=False, num_cpus=cpus, **SMALL, **head)
        cluster._wait_for_node(node, timeout=240)
        yield cluster
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()
        signal.signal(signal.SIGTERM, answer)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
