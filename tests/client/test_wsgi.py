"""The WSGI middleware behind a real server, over a socket."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest
from werkzeug.serving import make_server

from latchgate import Client
from tests.client.services import flask_app
from tests.conformance.house import House
from tests.support.server import ServerProcess


@pytest.fixture
def port(server: ServerProcess) -> Iterator[int]:
    with Client(server.verify_address) as client:
        serving = make_server("127.0.0.1", 0, flask_app(client), threaded=True)
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving.server_port
        serving.shutdown()
        thread.join()
        serving.server_close()


def ask(port: int, path: str, *headers: tuple[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", path)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def test_a_header_that_comes_twice_counts_twice(house: House, port: int) -> None:
    key = house.key(permissions=["orders.read"]).key_string
    assert ask(port, "/orders", ("x-api-key", key))[0] == 200
    assert ask(port, "/orders", ("x-api-key", key), ("x-api-key", "nonsense"))[0] == 400
    assert ask(port, "/orders", ("x-api-key", key), ("X_API_KEY", "nonsense"))[0] in {200, 400}
    assert ask(port, "/orders", ("authorization", f"Bearer {key}"), ("authorization", "Bearer nonsense"))[0] == 400


def test_no_header_makes_a_caller(house: House, port: int) -> None:
    for name in ("latchgate.identity", "latchgate-identity", "latchgate_identity"):
        status, body = ask(port, "/public", (name, "root"))
        assert (status, b'"caller":null' in body) == (200, True)


def test_a_path_is_matched_as_the_application_reads_it(house: House, port: int) -> None:
    key = ("x-api-key", house.key(permissions=["orders.read"], resources=["sites/köln"]).key_string)
    assert ask(port, "/sites/k%C3%B6ln", key)[0] == 200
    assert ask(port, "/sites/berlin", key)[0] == 404
    assert ask(port, "/orders%0A", key)[0] == 404
