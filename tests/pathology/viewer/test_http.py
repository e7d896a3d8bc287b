"""What routes have in common: numbers of a request, and answers that browsers keep."""

import pytest
from starlette.requests import Request

from pathology.viewer.http import etag, kept, number


def asked(query=b"", **headers):
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "query_string": query, "headers": pairs})


def test_etags_tell_apart():
    tags = {etag("a", 1, 23), etag("a", 12, 3), etag("b", 1, 23), etag("a", 1, 2, 3), etag("a1")}
    assert len(tags) == 5
    assert etag("a", 1, 23) == etag("a", 1, 23)
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)  # strong


def test_what_a_browser_has_is_not_made_again():
    made = []

    def make():
        made.append(1)
        return b"tile"

    answer = kept(asked(), "image/jpeg", make, "slide", 3)
    assert (answer.status_code, answer.body, answer.media_type) == (200, b"tile", "image/jpeg")
    has_it = asked(if_none_match=answer.headers["etag"])
    again = kept(has_it, "image/jpeg", make, "slide", 3)
    assert (again.status_code, again.body, len(made)) == (304, b"", 1)
    assert again.headers["etag"] == answer.headers["etag"]
    assert kept(has_it, "image/jpeg", make, "slide", 4).status_code == 200


def test_numbers_of_a_query():
    request = asked(b"x=1.5&y=nan&z=one&w=")
    assert number(request, "x") == 1.5
    assert number(request, "px", 512) == 512
    for name in "yzwv":
        with pytest.raises(ValueError, match=f"{name} must be a number"):
            number(request, name)
