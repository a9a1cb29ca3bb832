"""Asking a session in tests, without a client between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ci.engine import Session

FROM = 'from(address:"python:3.13-slim")'


def data(session: Session, query: str, **variables: Any) -> Any:
    """The innermost answer of a query that must not fail: what the last single field gave."""
    status, answer = session.answer(query, variables)
    assert (status, answer.get("errors")) == (200, None)
    found: Any = answer["data"]
    while isinstance(found, Mapping) and len(found) == 1:
        found = next(iter(found.values()))
    return found


def asked(session: Session, *fields: str) -> Any:
    """The same of fields one after the other on the base `python`."""
    chain = ["container", FROM, *fields]
    return data(session, "{" + "{".join(chain) + "}" * len(chain))
