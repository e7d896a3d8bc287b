"""Files that all slides share, here and where they are kept."""

import pytest

from pathology.errors import OutputError
from pathology.store.place import input_place, output_place
from pathology.store.store import Store
from tests.made_stores import DENIED, XML


def test_what_is_there_is_here_and_what_is_made_is_published(store):
    store.write("tile.yaml", b"before")
    with output_place(store.place) as place:
        assert place.fetch(["tile.yaml", "quality.html"]) == ["tile.yaml"]
        assert (place.folder / "tile.yaml").read_bytes() == b"before"
        (place.folder / "quality.html").write_text("page")
        place.publish(["quality.html"])
    assert place.folder.exists() == store.is_local
    assert store.read("quality.html") == b"page"
    with output_place(store.place) as place:
        place.fetch(["quality.html"])
        (place.folder / "quality.html").unlink()
        place.publish(["quality.html"])
    assert store.names() == ["tile.yaml"]


def test_whoever_comes_first_decides(s3, use, tmp_path):
    url = f"{use(s3).url}/{tmp_path.name}"
    with output_place(url) as one, output_place(url) as other:
        (one.folder / "tile.yaml").write_text("one")
        (other.folder / "tile.yaml").write_text("other")
        assert one.claim("tile.yaml")
        assert not other.claim("tile.yaml")
        assert (other.folder / "tile.yaml").read_text() == "one"
        assert other.claim("tile.yaml")  # the same
    assert Store.at(url).read("tile.yaml") == b"one"


def test_only_results_must_be_writable(s3, use, tmp_path):
    url = f"{use(s3).url}/{tmp_path.name}"
    Store.at(url).write("s1.parquet", b"1")
    s3.trouble.append(
        lambda asked: ("403 Forbidden", XML, DENIED) if asked["REQUEST_METHOD"] == "PUT" else None
    )
    with input_place(url) as place:
        assert place.fetch(["s1.parquet"]) == ["s1.parquet"]
    with pytest.raises(OutputError, match="may not be written"), output_place(url):
        pass
