"""Stores for tests that ask for them."""

from collections.abc import Callable, Iterator

import pytest

from pathology.store import remote
from pathology.store.store import Store
from tests.made_stores import MadeStore, amazon, google


@pytest.fixture(scope="module")
def s3() -> Iterator[MadeStore]:
    with amazon() as store:
        yield store


@pytest.fixture(scope="module")
def gcs() -> Iterator[MadeStore]:
    with google() as store:
        yield store


@pytest.fixture
def use(monkeypatch) -> Iterator[Callable[[MadeStore], MadeStore]]:
    """Sets the environment as it would have been when the process began; nobody waits."""
    import fsspec.config

    monkeypatch.setattr(remote, "WAITS_S", (0.01, 0.01))
    before = {protocol: dict(options) for protocol, options in fsspec.config.conf.items()}

    def set_all(store: MadeStore) -> MadeStore:
        for name, value in store.variables.items():
            monkeypatch.setenv(name, value)
        fsspec.config.set_conf_env(fsspec.config.conf)
        store.trouble.clear()
        store.asked.clear()
        return store

    yield set_all
    fsspec.config.conf.clear()
    fsspec.config.conf.update(before)


@pytest.fixture(params=["folder", "s3", "gcs"])
def store(request, use, tmp_path) -> Store:
    """An empty place of each kind."""
    if request.param == "folder":
        return Store.at(tmp_path / "store")
    made = use(request.getfixturevalue(request.param))
    return Store.at(f"{made.url}/{tmp_path.name}")
