"""JSON logs, one object a line, with the run's id and without what people said.

    configure(level="INFO", form="json")
    log = structlog.get_logger("service.runs")
    with bound(run_id="run_123", session_id="ses_9"):
        log.info("run.started", model="gemma3n")

Everything goes through here, uvicorn's lines too. Fields that hold content (`CONTENT_FIELDS`) are replaced by
their size unless `capture_content` is on; fields that hold secrets never appear.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast

import structlog

Form = Literal["json", "console"]

CONTENT_FIELDS = frozenset(
    {
        "content",
        "text",
        "message_text",
        "messages",
        "prompt",
        "input",
        "output",
        "arguments",
        "result",
        "delta",
    }
)
SECRET_FIELDS = frozenset({"authorization", "api_key", "key", "password", "secret", "token", "cookie"})

# A bearer header or a key of ours inside a sentence, as an exception's text may hold one.
_SECRET_TEXT = re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{8,}|\b(?:al|sk)[-_][A-Za-z0-9_-]{16,}")

Event = MutableMapping[str, Any]


def configure(
    level: str = "INFO", form: Form = "json", *, capture_content: bool = False, stream: TextIO | None = None
) -> None:
    """Send structlog's and the standard library's log records to `stream` (default: standard error)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        Redactor(capture_content=capture_content),
    ]
    render: Any = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # The access log would repeat what the HTTP metrics and our own lines say; httpx logs whole addresses.
    logging.getLogger("uvicorn.access").setLevel("WARNING")
    logging.getLogger("httpx").setLevel("WARNING")
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


@contextmanager
def bound(**fields: str) -> Generator[None]:
    """Add fields (run_id, session_id) to every line logged inside the block, also by called code."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


class Redactor:
    """A structlog processor: content becomes its size, secrets become `[redacted]`."""

    def __init__(self, *, capture_content: bool) -> None:
        self._capture = capture_content

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        for key in list(event):
            value: Any = event[key]
            name = key.lower()
            if name in SECRET_FIELDS:
                event[key] = "[redacted]"
            elif name in CONTENT_FIELDS and not self._capture:
                event[f"{key}_chars"] = _size(value)
                del event[key]
            elif isinstance(value, str):
                event[key] = _SECRET_TEXT.sub(lambda found: (found.group(1) or "") + "[redacted]", value)
        return event


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_size(each) for each in cast("dict[str, Any]", value).values())
    if isinstance(value, (list, tuple)):
        return sum(_size(each) for each in cast("list[Any]", value))
    return len(str(value))
