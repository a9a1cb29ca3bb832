"""Fields of `Secret`."""

from __future__ import annotations

from ci.engine.registry import Args, Call, field
from ci.engine.secrets import Secret


@field("Secret", "name")
def name(ctx: Call, parent: Secret, args: Args) -> str:
    return parent.label


@field("Secret", "uri")
def uri(ctx: Call, parent: Secret, args: Args) -> str:
    return parent.uri


@field("Secret", "plaintext", memo=False, effect=True, placeholder="***")
def plaintext(ctx: Call, parent: Secret, args: Args) -> str:
    return ctx.session.secrets.plaintext(parent).decode(errors="replace")
