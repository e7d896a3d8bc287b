"""Stores of Amazon's and Google's kind on this machine, over HTTP like the real ones."""

import json
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from werkzeug.serving import make_server

# Before gcsfs is imported: else it asks for the bucket's layout by gRPC, which the emulator does
# not speak, and waits for a minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

Trouble = Callable[[dict], tuple[str, list[tuple[str, str]], bytes] | None]
"""Answers a request in the store's place, or lets it pass."""

BUSY = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""
DENIED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"""
XML = [("Content-Type", "application/xml")]


@dataclass
class MadeStore:
    """A running store.

    Args:
        url: of a bucket that is there.
        variables: of the environment, by which programs find it.
        trouble: what it is to answer instead, see :data:`Trouble`.
        asked: methods and paths of all requests.
    """

    url: str
    variables: dict[str, str]
    trouble: list[Trouble] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def amazon() -> Iterator[MadeStore]:
    """By moto, whose parts, conditions and errors are those of S3."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )

    store = MadeStore("s3://cohorts", {})
    moto = DomainDispatcherApplication(create_backend_app)

    def app(environ, start_response):
        store.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        for trouble in store.trouble:
            answer = trouble(environ)
            if answer is not None:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response(answer[0], answer[1])
                return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer[2]]
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    address = f"http://127.0.0.1:{server.server_port}"
    store.variables = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    _forget("s3")
    with _serving(server):
        request("PUT", f"{address}/cohorts")
        try:
            yield store
        finally:
            store.trouble.clear()
            request("POST", f"{address}/moto-api/reset")
            _forget("s3")


@contextmanager
def google() -> Iterator[MadeStore]:
    """By an emulator of Google Cloud Storage."""
    from gcp_storage_emulator.server import create_server

    _teach_conditions()
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    address = "http://{}:{}".format(*server._api._httpd.server_address)
    try:
        bucket = json.dumps({"name": "cohorts"}).encode()
        request("POST", f"{address}/storage/v1/b?project=p", bucket)
        variables = {"STORAGE_EMULATOR_HOST": address, "FSSPEC_GS_TOKEN": "anon"}
        variables["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
        _forget("gs")
        yield MadeStore("gs://cohorts", variables)
    finally:
        _forget("gs")
        server.stop()


def _forget(protocol: str) -> None:
    """Connections are made by the environment as it is, not as it was for another test."""
    from fsspec.registry import get_filesystem_class

    get_filesystem_class(protocol).clear_instance_cache()


def _teach_conditions() -> None:
    """The emulator passes over ``ifGenerationMatch=0``, write only what is not there."""
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects
    from gcp_storage_emulator.server import HANDLERS

    def insert(asked, answer, storage):
        if asked.query.get("ifGenerationMatch") == ["0"]:
            with suppress(NotFound):
                storage.get_file_obj(asked.params["bucket_name"], asked.data["meta"]["name"])
                answer.status = HTTPStatus.PRECONDITION_FAILED
                return
        objects.insert(asked, answer, storage)

    for _, handlers in HANDLERS:
        if handlers.get("POST") is objects.insert:
            handlers["POST"] = insert


def request(method: str, url: str, data: bytes = b"") -> bytes:
    asked = urllib.request.Request(
        url, data or None, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return answer.read()


@contextmanager
def _serving(server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
