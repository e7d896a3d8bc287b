"""Who may talk to the viewer. Each rule has a test that fails without it."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pathology.viewer.serving.access import Access, Guard, is_local, local_names

PORT = 8123
ORIGIN = f"http://127.0.0.1:{PORT}"
NAVIGATION = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"}


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the page")


async def secret(request: Request) -> PlainTextResponse:
    return PlainTextResponse("secret")


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


APP = Starlette(
    routes=[
        Route("/", page),
        Route("/api/library", secret),
        Route("/static/main.js", secret),
        Route("/api/write", count, methods=["POST", "DELETE"]),
    ]
)


@pytest.fixture
def access():
    return Access(PORT, body_bytes=1000)


@pytest.fixture
def stranger(access):
    return TestClient(Guard(APP, access), base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def friend(access):
    """Has followed the printed address."""
    client = TestClient(Guard(APP, access), base_url=ORIGIN, follow_redirects=False)
    assert client.get(f"/?token={access.token}").status_code == 303
    return client


# --- the token


def test_a_token_of_its_own_for_each_viewer():
    tokens = {Access(PORT).token for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token) >= 43 for token in tokens)  # 256 bits in base 64
    assert "token" not in repr(Access(PORT))


@pytest.mark.parametrize("path", ["/", "/api/library", "/static/main.js", "/nothing"])
def test_nothing_without_it(stranger, path):
    answer = stranger.get(path)
    assert answer.status_code == 401
    assert "secret" not in answer.text
    assert "the page" not in answer.text


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "ü", "\0"])
def test_nothing_with_another(stranger, access, token):
    assert stranger.get("/", params={"token": token}).status_code == 401
    cookie = f"{access.cookie}={token}".encode()
    assert stranger.get("/api/library", headers={b"Cookie": cookie}).status_code == 401
    assert stranger.get("/api/library", params={"token": access.token}).status_code == 401


def test_the_address_is_cleared_of_it(stranger, access):
    answer = stranger.get(f"/?a=1&token={access.token}&b=x%26y")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?a=1&b=x%26y"
    assert access.token not in answer.headers["location"]
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"pathology_view_{PORT}={access.token};")
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert stranger.get("/").text == "the page"


def test_two_viewers_keep_out_of_each_others_cookies():
    assert Access(8000).cookie != Access(8001).cookie


def test_with_it_everything(friend):
    assert friend.get("/").text == "the page"
    assert friend.get("/api/library").text == "secret"
    assert friend.get("/static/main.js").text == "secret"


def test_links_from_elsewhere_arrive(stranger, friend, access):
    """Another site's link brings no strict cookie along; a page of our own in between has it."""
    away = {**NAVIGATION, "Sec-Fetch-Site": "cross-site"}
    first = stranger.get(f"/?token={access.token}", headers=away)
    assert first.status_code == 200
    assert access.cookie in first.headers["set-cookie"]
    assert 'content="0;url=/"' in first.text
    assert access.token not in first.text
    later = TestClient(Guard(APP, access), base_url=ORIGIN).get("/", headers=away)
    assert 'content="0"' in later.text
    assert "the page" not in later.text
    # It does not go round in circles.
    own = {**NAVIGATION, "Sec-Fetch-Site": "same-origin"}
    ended = TestClient(Guard(APP, access), base_url=ORIGIN).get("/", headers=own)
    assert ended.status_code == 401
    assert "pathology view" in ended.text


def test_the_way_on_holds_no_html_of_others(stranger, access):
    away = {**NAVIGATION, "Sec-Fetch-Site": "cross-site"}
    text = stranger.get(f'/?token={access.token}&a="><script>x</script>', headers=away).text
    assert "<script" not in text


# --- names


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", "127.0.0.1.evil.example", "localhost.evil.example",
     "127.0.0.1@evil.example", "", "192.168.0.7:8000", "[::2]:8000", "[", "2130706433"],
)  # fmt: skip
def test_a_name_of_somebody_else_is_not_answered(friend, access, host):
    """DNS rebinding: the name leads here, and its page would be of the same origin."""
    cookie = f"{access.cookie}={access.token}"
    headers = {"Host": host, "Cookie": cookie}
    answer = friend.get("/api/library", headers=headers)
    assert answer.status_code == 421
    assert "secret" not in answer.text
    assert friend.get(f"/?token={access.token}", headers=headers).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9999", "127.0.0.1:1", "[::1]:8000"])
def test_names_of_this_machine_at_any_port(friend, access, host):
    headers = {"Host": host, "Cookie": f"{access.cookie}={access.token}"}
    assert friend.get("/api/library", headers=headers).text == "secret"


def test_a_viewer_answers_to_the_address_that_it_prints():
    for host in ("127.0.0.1", "127.0.0.2", "localhost"):
        assert Access(PORT, local_names(host)).knows(f"{host}:{PORT}")
    assert not Access(PORT, local_names("127.0.0.2")).knows("127.0.0.3")


def test_two_hosts_are_none(access):
    async def ask(*hosts):
        said = []
        headers = [(b"host", host) for host in hosts]
        headers.append((b"cookie", f"{access.cookie}={access.token}".encode()))
        scope = {
            "type": "http", "method": "GET", "path": "/api/library", "query_string": b"",
            "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "",
        }  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            said.append(message)

        await Guard(APP, access)(scope, receive, send)
        return said[0]["status"]

    assert asyncio.run(ask(b"localhost")) == 200
    assert asyncio.run(ask(b"localhost", b"evil.example")) == 421
    assert asyncio.run(ask()) == 421


def test_remote_viewers_answer_to_their_own_name_and_to_addresses(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Station")
    monkeypatch.setattr("socket.getfqdn", lambda: "station.lab.example")
    access = Access(PORT, local_names("0.0.0.0"), any_address=True)
    for host in ("station", "station.lab.example:80", "10.1.2.3:8000", "[fe80::1]", "localhost"):
        assert access.knows(host)
    for host in ("evil.example", "", "10.1.2.3.evil.example"):
        assert not access.knows(host)
    assert Access(PORT, local_names("lab.example"), any_address=True).knows("lab.example:8000")


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.3.2.1", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("station", False), ("", False)],
)  # fmt: skip
def test_what_is_local(host, local):
    assert is_local(host) is local


# --- origins


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "origin",
    [None, "null", "", "http://evil.example", "http://127.0.0.1:9999", "http://localhost:8123",
     "ftp://127.0.0.1:8123", f"{ORIGIN}.evil.example", "127.0.0.1:8123"],
)  # fmt: skip
def test_changes_from_elsewhere_are_refused(friend, method, origin):
    headers = {} if origin is None else {"Origin": origin}
    answer = friend.request(method, "/api/write", headers=headers)
    assert answer.status_code == 403


def test_changes_from_the_page_are_taken(friend):
    for headers in ({"Origin": ORIGIN}, {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}):
        assert friend.post("/api/write", content=b"123", headers=headers).text == "3"
    # Through a tunnel that ends at another port, or in TLS.
    cookie = "; ".join(f"{name}={value}" for name, value in friend.cookies.items())
    for scheme in ("http", "https"):
        headers = {"Host": "localhost:99", "Origin": f"{scheme}://localhost:99", "Cookie": cookie}
        assert friend.post("/api/write", content=b"123", headers=headers).text == "3"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_do_not_even_read(friend, site):
    """``same-site``: a page of another port of this machine, which the cookie would come with."""
    for path in ("/api/library", "/static/main.js", "/"):
        answer = friend.get(path, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "image"})
        assert answer.status_code == 403
        assert "secret" not in answer.text
    headers = {"Sec-Fetch-Site": site, "Origin": ORIGIN}
    assert friend.post("/api/write", headers=headers).status_code == 403


def test_no_page_may_share_what_is_read(friend):
    for path in ("/", "/api/library"):
        for method in ("GET", "OPTIONS"):
            answer = friend.request(method, path, headers={"Origin": "http://evil.example"})
            assert not any(name.startswith("access-control") for name in answer.headers)


# --- headers


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [("/", "localhost", 200), ("/api/library", "localhost", 200), ("/nothing", "localhost", 404),
     ("/", "evil.example", 421)],
)  # fmt: skip
def test_every_answer_says_what_browsers_may_do(friend, access, path, host, status):
    cookie = f"{access.cookie}={access.token}"
    answer = friend.get(path, headers={"Host": host, "Cookie": cookie})
    assert answer.status_code == status
    policy = dict(
        rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"  # no inline script, no eval
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "http" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


# --- limits


def test_a_body_has_an_end(friend):
    own = {"Origin": ORIGIN}
    assert friend.post("/api/write", content=b"x" * 1000, headers=own).text == "1000"
    answer = friend.post("/api/write", content=b"x" * 1001, headers=own)
    assert answer.status_code == 413
    assert "1,000 bytes" in answer.json()["error"]


def test_a_length_that_lies_is_refused_unread(friend):
    for told in ("1001", "99999999999999999999", "-1", "x"):
        headers = {"Origin": ORIGIN, "Content-Length": told}
        assert friend.post("/api/write", content=b"", headers=headers).status_code == 413


def test_a_body_without_length_is_not_read_to_its_end(access):
    """Chunks, of which only as many are taken as may be."""
    taken = []

    async def ask():
        said = []
        scope = {
            "type": "http", "method": "POST", "path": "/api/write", "query_string": b"",
            "http_version": "1.1", "scheme": "http", "root_path": "",
            "headers": [
                (b"host", b"localhost"), (b"origin", b"http://localhost"),
                (b"cookie", f"{access.cookie}={access.token}".encode()),
            ],
        }  # fmt: skip

        async def receive():
            taken.append(300)
            return {"type": "http.request", "body": b"x" * 300, "more_body": True}

        async def send(message):
            said.append(message)

        await Guard(APP, access)(scope, receive, send)
        return said[0]["status"]

    assert asyncio.run(ask()) == 413
    assert len(taken) == 4  # the fourth is beyond a thousand


def test_web_sockets_are_not_spoken(access):
    async def ask():
        said = []

        async def send(message):
            said.append(message)

        await Guard(APP, access)({"type": "websocket", "headers": []}, None, send)
        return said

    assert asyncio.run(ask())[0]["type"] == "websocket.close"
