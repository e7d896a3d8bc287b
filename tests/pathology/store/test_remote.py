"""What stores over the network have to say: in one line, tried again where that may help."""

import os
import signal
import subprocess
import sys
import time

import pytest

from pathology.errors import OutputError
from pathology.store import remote
from pathology.store.store import Store
from tests.made_stores import BUSY, DENIED, XML

UNKNOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NotImplemented</Code><Message>A header is not known here.</Message></Error>"""


def said(store, what):
    with pytest.raises(OutputError) as error:
        what(store)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(store.place)
    return text


def write(store):
    store.write("a", b"1")


WHATEVER = [
    write,
    lambda store: store.read("a"),
    lambda store: store.read_all(["a"]),
    lambda store: store.seen("a"),
    lambda store: store.names(),
    lambda store: store.check_writable(),
]


@pytest.fixture
def store(s3, use, tmp_path):
    return Store.at(f"{use(s3).url}/{tmp_path.name}")


@pytest.fixture
def impatient(monkeypatch):
    """The libraries try once or twice, and so it is our turn soon."""
    import s3fs.core

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.core.S3FileSystem, "retries", 1)
    s3fs.core.S3FileSystem.clear_instance_cache()
    yield
    s3fs.core.S3FileSystem.clear_instance_cache()


def test_a_bucket_that_is_not_there(s3, gcs, use):
    use(s3)
    assert "no such bucket" in said(Store.at("s3://elsewhere/a"), write)
    use(gcs)
    assert "no such bucket" in said(Store.at("gs://elsewhere/a"), write)


def test_no_credentials(store, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    type(store._system).clear_instance_cache()
    store = Store.at(store.place)
    assert "no credentials" in said(store, write)
    type(store._system).clear_instance_cache()


@pytest.mark.parametrize("what", WHATEVER)
def test_what_is_forbidden(impatient, s3, store, what):
    s3.trouble.append(lambda _: ("403 Forbidden", XML, DENIED))
    assert "look at the credentials" in said(store, what)


def test_a_bucket_that_may_be_read_only(s3, store):
    store.write("a", b"1")
    s3.trouble.append(
        lambda asked: (
            ("403 Forbidden", XML, DENIED) if asked["REQUEST_METHOD"] in ("PUT", "POST") else None
        )
    )
    assert store.read("a") == b"1"
    assert "may not be written" in said(store, lambda store: store.check_writable())


def test_a_store_that_is_out_of_reach(impatient, store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(store._system).clear_instance_cache()
    store = Store.at(store.place)
    assert "cannot be reached" in said(store, lambda store: store.check_writable())
    type(store._system).clear_instance_cache()


def busy(times):
    """Answers so often that it is too busy."""
    left = [times]

    def answer(_):
        left[0] -= 1
        return ("503 Slow Down", XML, BUSY) if left[0] >= 0 else None

    return answer


def test_a_busy_store_is_asked_again(impatient, s3, store):
    s3.trouble.append(busy(2))
    assert store.write("a", b"1")
    s3.trouble[:] = [busy(2)]
    assert store.read("a") == b"1"
    s3.trouble[:] = [busy(10**6)]
    assert "too busy" in said(store, write)


def test_what_is_cut_off_is_fetched_again_or_not_at_all(impatient, s3, store, tmp_path):
    data = os.urandom(300_000)
    store.write("slide.svs", data)
    length = [("Content-Length", str(len(data))), ("Content-Type", "x/y")]
    cuts = [1]

    def cut(asked):
        if asked["REQUEST_METHOD"] != "GET" or not cuts[0]:
            return None
        cuts[0] -= 1
        return "200 OK", length, data[:100_000]

    s3.trouble.append(cut)
    store.get("slide.svs", tmp_path / "slide.svs")
    assert (tmp_path / "slide.svs").read_bytes() == data
    (tmp_path / "slide.svs").unlink()
    cuts[0] = 10**6
    assert "slide.svs" in said(store, lambda store: store.get("slide.svs", tmp_path / "slide.svs"))
    assert [path.name for path in tmp_path.iterdir()] == []


def test_what_changes_while_it_is_fetched_is_fetched_again(s3, store, tmp_path):
    other = Store.at(store.place)
    store.write("a", b"old!")
    times = [1]

    def change(asked):
        if asked["REQUEST_METHOD"] == "GET" and times[0]:
            times[0] -= 1
            other.write("a", b"new!")

    s3.trouble.append(change)
    store.get("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new!"


def passed_over(asked):
    asked.pop("HTTP_IF_NONE_MATCH", None)


def unknown(asked):
    return ("501 Not Implemented", XML, UNKNOWN) if "HTTP_IF_NONE_MATCH" in asked else None


@pytest.mark.parametrize("answer", [passed_over, unknown])
def test_stores_that_know_no_conditions_are_asked_before(s3, store, answer):
    s3.trouble.append(answer)
    assert store.write("tile.yaml", b"first", only_if_absent=True)
    assert not store.write("tile.yaml", b"second", only_if_absent=True)
    assert store.read("tile.yaml") == b"first"


SENDER = """
import sys
from pathlib import Path
import s3fs.core
from pathology.store.store import Store
s3fs.core.calculate_chunksize = lambda *_, **__: int(sys.argv[3])
Store.at(sys.argv[1]).put(Path(sys.argv[2]), "large.h5")
"""


def test_an_upload_in_parts_is_seen_when_all_of_it_is_there(s3, store, tmp_path, monkeypatch):
    """A killed process leaves nothing under the name, and what was there stays."""
    part = 5 * 2**20  # the least that the protocol allows
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: part)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2 * part + 1)
    store.write("large.h5", b"before")
    parts = []

    def hold(asked):
        if asked["REQUEST_METHOD"] == "PUT" and "partNumber=" in asked["QUERY_STRING"]:
            parts.append(asked["QUERY_STRING"])
            if "partNumber=2" in asked["QUERY_STRING"]:
                time.sleep(1)
                return "503 Slow Down", XML, BUSY

    s3.trouble.append(hold)
    sender = subprocess.Popen([sys.executable, "-c", SENDER, store.place, large, str(part)])
    deadline = time.monotonic() + 120
    while not any("partNumber=2" in part for part in parts):
        assert sender.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sender.kill()
    assert sender.wait() == -signal.SIGKILL
    s3.trouble.clear()
    assert store.names() == ["large.h5"]
    assert store.read("large.h5") == b"before"
    store.put(large, "large.h5")
    assert store.seen("large.h5").bytes == 2 * part + 1


def test_the_first_look_does_not_wait(impatient, s3, store, monkeypatch):
    monkeypatch.setattr(remote, "WAITS_S", (10**6,))
    s3.trouble.append(lambda _: ("500 Internal Server Error", XML, b""))
    assert "cannot be written" in said(store, lambda store: store.check_writable())
