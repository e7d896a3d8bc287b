"""A Ray that is joined, or started on this machine for as long as a run takes."""

import logging
import os
import re
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from pathology.cohort.engine import Needs
from pathology.errors import ClusterError, MissingExtraError

STORE_BYTES = 100_000_000  # of a private Ray: rows and lines pass through it, never pixels
CONNECT_S = 20.0


@contextmanager
def joined(address: str | None, cpus: float) -> Iterator[Any]:
    """The module ``ray``, connected.

    A Ray that this process has joined already is used, and left as it is.

    Args:
        address: of a running cluster: ``auto`` or ``host:port``; ``None`` starts one on this
            machine, which ends with the block.
        cpus: that one must have at least.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: there is no cluster at the address, or of other versions.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(
            'workers on a cluster need Ray: pip install "bcos-pathology[cluster]"'
        ) from error
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        most = max(float(cores or 1), cpus)
        quiet |= {
            "address": "local",
            "num_cpus": int(-(-most // 1)),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    else:
        _check_reachable(address)
        quiet["address"] = address
    # Lines of its raylets about dead workers, which log_to_driver leaves on: the run tells them.
    own, its_lines = ray._private.worker, "_worker_logs_enabled"
    lines = getattr(own, its_lines, True)
    setattr(own, its_lines, False)
    try:
        with _sigterm_kept(), _own_settings() if address is None else nullcontext():
            _init(ray, address, quiet)
        yield ray
    finally:
        ray.shutdown()  # what was begun, where that was interrupted
        setattr(own, its_lines, lines)


def _init(ray: Any, address: str | None, options: dict[str, Any]) -> None:
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises plain ones, too
        where = "a Ray of its own" if address is None else f"the cluster at {address}"
        raise ClusterError(f"{where} cannot be used: {_why(error)}") from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """SIGTERM is the run's, though Ray takes it when it begins, and would end the process by it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM and callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _own_settings() -> Iterator[None]:
    """A private Ray is for this run alone, whatever the others on this machine.

    Ray itself would leave a token in the user's home, and so have the user's next cluster ask
    for it. And its workers would wait for whatever else the machine does, its own driver among
    them.
    """
    settings = {"RAY_AUTH_TOKEN": _token(), "RAY_worker_niceness": "0"}
    before = {name: os.environ.get(name) for name in (*settings, "RAY_AUTH_MODE")}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, former in before.items():
            if former is None:
                os.environ.pop(name, None)


@cache
def _token() -> str:
    """One for all Rays of this process: Ray remembers the first."""
    return secrets.token_hex(32)


def _why(error: BaseException) -> str:
    """The cause in one line; Ray hides it behind others."""
    cause: BaseException | None = error
    while cause is not None:
        if "AuthenticationError" in f"{type(cause).__name__} {cause}":
            return (
                "it wants a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN where"
                " ~/.ray/auth_token is not that of the cluster"
            )
        cause = cause.__cause__ or cause.__context__
    return str(error).strip().splitlines()[-1].strip() or type(error).__name__


def check_address(address: str) -> None:
    """Refuse what is no address of a cluster.

    Raises:
        ValueError: it is none, or that of a Ray client, which knows no ``concurrency_group``: it
            cannot call a worker beside its work.
    """
    if address.startswith("ray://"):
        raise ValueError(
            f"--address {address}: not by Ray's client; run this on a machine of the cluster, by"
            " `ray job submit` from elsewhere, with --address auto or host:6379"
        )
    if address != "auto" and not re.fullmatch(r"[^\s/]+:\d{1,5}", address):
        raise ValueError(f"--address must be auto or host:6379, got {address!r}")


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(
            f"no cluster answers at {address}: {error.strerror or error}; start one with"
            " `ray start --head`, or look at its address with `ray status`"
        ) from error


def room_for(ray: Any, needs: Needs) -> int:
    """How many workers fit on the machines that are there, if they have nothing else to do."""
    count = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            shares = [
                has.get(name, 0.0) / share
                for name, share in (("CPU", needs.cpus), ("GPU", needs.gpus))
                if share
            ]
            count += int(min(shares, default=0.0) + 1e-6)
    return count


def settled(ray: Any, needs: Needs) -> Needs:
    """What a worker asks for, where that depends on what there is."""
    if needs.gpus_if_any and not ray.cluster_resources().get("GPU"):
        return Needs(needs.cpus)
    return Needs(needs.cpus, needs.gpus)


def in_words(ray: Any, needs: Needs) -> str:
    """What a worker needs, and what there is."""
    has, free = ray.cluster_resources(), ray.available_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    asked = _amounts({"CPU": needs.cpus, "GPU": needs.gpus})
    there = ", ".join(
        f"{has.get(name, 0):g} {name}s ({free.get(name, 0):g} free)" for name in ("CPU", "GPU")
    )
    machines = "is 1 machine" if nodes == 1 else f"are {nodes} machines"
    return f"each needs {asked}; there {machines} with {there}"


def _amounts(of: dict[str, float]) -> str:
    return " and ".join(
        f"{amount:g} {name}{'s' if amount > 1 else ''}" for name, amount in of.items() if amount
    )
