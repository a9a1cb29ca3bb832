"""Requests that no client of dagger's sends: each has an answer, and the session goes on."""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from ci.engine import Session


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """One for all: none of them may end it."""
    with Session() as opened:
        yield opened


def post(session: Session, body: bytes | str, **headers: str) -> tuple[int, Any]:
    """Status and answer of a request as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", session.port, timeout=30)
    allowed = "Basic " + b64encode(f"{session.token}:".encode()).decode()
    connection.request("POST", "/query", body, {"Authorization": allowed, **headers})
    response = connection.getresponse()
    try:
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"\xff\xfe", '{"query": 5}', '{"query": null}', '{"query": "{version}", "variables": [1]}'],
)
def test_a_body_that_is_no_query_is_told(session: Session, body: bytes | str) -> None:
    """With the status of a bad request, not of a fault of ours."""
    status, answer = post(session, body)
    assert status == 400
    assert answer["errors"][0]["message"] == "The body is no JSON object with a query."


def test_a_length_that_is_no_number_is_told(session: Session) -> None:
    """And the connection is not left open without an answer."""
    assert post(session, b"", **{"Content-Length": "many"})[0] == 400


def test_half_of_a_surrogate_pair_becomes_the_replacement_character(session: Session) -> None:
    """As Go reads JSON; Python's client sends such texts of bytes that were read with surrogateescape."""
    query = 'query Q($c: String!) {file(name: "n", contents: $c) {contents}}'
    body = json.dumps({"query": query, "variables": {"c": "a\ud800b\U0001f600"}})
    assert post(session, body) == (200, {"data": {"file": {"contents": "a�b\U0001f600"}}})
