"""The engine that a command line asks for."""

from typing import Literal

from pathology.cohort.engine import Engine
from pathology.cohort.here import Here
from pathology.cohort.processes import Processes

EngineName = Literal["local", "ray"]


def make_engine(
    engine: EngineName = "local", workers: int = 0, address: str | None = None, retries: int = 1
) -> Engine:
    """What works on a cohort.

    Args:
        engine: local, processes of this machine; or ray, those of a cluster.
        workers: how many; 0 is this process, and with ray as many as its machines have place for.
        address: of the cluster.
        retries: how often a slide is tried again whose worker died.

    Raises:
        ValueError: there is no such engine, a number is negative, or an address is given to an
            engine that has none.
        MissingExtraError: Ray is not installed.
    """
    for name, value in (("workers", workers), ("retries", retries)):
        if value < 0:
            raise ValueError(f"--{name} must be at least 0, got {value}")
    if engine == "ray":
        from pathology.cohort.on_ray.engine import RayEngine

        return RayEngine(address=address, workers=workers, retries=retries)
    if engine != "local":
        raise ValueError(f"--engine must be local or ray, got {engine!r}")
    if address is not None:
        raise ValueError(f"--address {address} is a cluster's; it needs --engine ray")
    return Processes(workers, retries) if workers else Here()
