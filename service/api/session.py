"""Which session an answer belongs to. Every such answer, errors too, carries `X-Session-Id`: a balancer keeps a session
with the variant that the id names, and clients send it back with their next request.
"""

from __future__ import annotations

import re

from fastapi import Request

from service.runs.spec import new_session_id

SESSION_ID = re.compile(r"sess_(?P<variant>[a-z0-9-]{1,32})_[0-9a-f]{28}")
HEADER = "X-Session-Id"


def belongs_to(request: Request, session_id: str, run_id: str | None = None) -> None:
    """Let the answer to `request` name its session, and its run; `api.edge` writes the headers."""
    request.state.session_id = session_id
    request.state.run_id = run_id


def belongs_to_its_variant(request: Request, variant: str) -> None:
    """The same for an answer that nothing is stored of: the session that the client named, or one to name from now on.

    Such an id only says which variant the client stays with; a name that is not of this variant is not repeated.
    """
    named = SESSION_ID.fullmatch(request.headers.get(HEADER, ""))
    same = named is not None and named["variant"] == variant
    request.state.session_id = named[0] if named is not None and same else new_session_id(variant)
