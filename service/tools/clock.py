"""The present time, which no model knows."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field

from service.tools.base import ToolError
from service.tools.function import tool


@tool(idempotent=True, timeout=5.0)
def clock(
    zone: Annotated[str, Field(description="A zone of the IANA list, such as Europe/Vienna.")] = "UTC",
) -> str:
    """The present date and time in a time zone, with the weekday."""
    return datetime.now(_zone(zone)).strftime("%A, %Y-%m-%d %H:%M:%S %Z (UTC%z)")


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed, or a folder of the zone list
        raise ToolError(f"No such time zone: {name}. Use a name such as Europe/Vienna.") from None
