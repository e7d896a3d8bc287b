"""`pathology tile` begun twice, on a cluster, with results in a store of Amazon's kind."""

import json

import pytest

pytest.importorskip("ray")
pytest.importorskip("moto")

from tests.cluster.accidents import waiting
from tests.cluster.faulty_tiles import FaultyTiles, end, error_line
from tests.made_stores import amazon


@pytest.fixture
def url(stores, monkeypatch):
    """Of a bucket that every new process finds."""
    with amazon() as store:
        for name, value in store.variables.items():
            monkeypatch.setenv(name, value)
        found = {
            "endpoint_url": store.variables["AWS_ENDPOINT_URL"],
            "key": store.variables["AWS_ACCESS_KEY_ID"],
            "secret": store.variables["AWS_SECRET_ACCESS_KEY"],
        }
        settings = stores / "s3.json"
        settings.write_text(json.dumps({"s3": found}))
        yield store.url
        settings.unlink()


def test_runs_into_one_place_at_once(slides, cluster, url, tmp_path):
    """Two of the same share it; one with other settings is refused."""
    tiles = FaultyTiles(slides, tmp_path, cluster.address, f"{url}/tiles")
    tiles.fault("s0.always-wait")
    runs = [tiles.start(workers=1) for _ in range(2)]
    waiting(tiles.faults, 2)  # both are in the middle of the same slide
    code, said = tiles.run("--min-tissue", "0.7")
    assert code == 2, said
    assert "min_tissue 0.5, wanted 0.7" in error_line(said)
    tiles.fault("go")
    for code, said in [end(run) for run in runs]:
        assert code == 0, said
    fetch_all(tiles.out, tmp_path / "fetched")
    tiles.check(tmp_path / "fetched")
    print("survived: two runs of the same into one bucket, and one with other settings")


def fetch_all(url, folder):
    from pathology.store.store import Store

    store = Store.at(url)
    for name in store.names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        store.get(name, folder / name)
