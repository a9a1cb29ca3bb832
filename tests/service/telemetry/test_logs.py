"""Logs: one JSON object a line, with ids, without content or secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service.telemetry import logs

pytestmark = pytest.mark.in_image


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestLines:
    def test_every_line_is_an_object_with_the_run_id(self) -> None:
        """Lines logged inside `bound`, by structlog or the standard library, carry the run's id."""
        stream = io.StringIO()
        logs.configure("INFO", "json", stream=stream)
        with logs.bound(run_id="run_1", session_id="ses_1"):
            structlog.get_logger("service.runs").info("run.started", model="m")
            logging.getLogger("uvicorn.error").warning("slow %s", "disk")
        structlog.get_logger("service.runs").info("idle")
        first, second, third = lines(stream)
        assert (first["event"], first["model"], first["level"]) == ("run.started", "m", "info")
        assert (second["event"], second["logger"]) == ("slow disk", "uvicorn.error")
        assert first["run_id"] == second["run_id"] == "run_1"
        assert "run_id" not in third
        assert first["timestamp"].endswith("Z")

    def test_content_becomes_its_size(self) -> None:
        """What people and models said is not in the log by default; how much it was is."""
        stream = io.StringIO()
        logs.configure(stream=stream)
        log = structlog.get_logger("x")
        log.info("model.answered", content="my diagnosis", messages=[{"role": "user", "content": "secret"}])
        assert "diagnosis" not in stream.getvalue()
        assert "secret" not in stream.getvalue()
        assert lines(stream)[0]["content_chars"] == 12
        assert lines(stream)[0]["messages_chars"] == len("user") + len("secret")

    def test_content_can_be_asked_for(self) -> None:
        """`capture_content` keeps it."""
        stream = io.StringIO()
        logs.configure(stream=stream, capture_content=True)
        structlog.get_logger("x").info("model.answered", content="hello")
        assert lines(stream)[0]["content"] == "hello"

    @pytest.mark.parametrize(
        ("fields", "hidden"),
        [
            ({"api_key": "al_live_0123456789abcdef0123"}, "0123456789abcdef"),
            ({"Authorization": "Bearer abcdefgh12345678"}, "abcdefgh12345678"),
            ({"error": "refused: Bearer abcdefgh12345678"}, "abcdefgh12345678"),
            ({"url": "http://x/?k=sk-proj-ABCDEFGHIJKLMNOPQRST"}, "ABCDEFGHIJKLMNOPQRST"),
        ],
    )
    def test_secrets_never_appear(self, fields: dict[str, str], hidden: str) -> None:
        """Neither as a field nor inside a text, not even with content capture on."""
        stream = io.StringIO()
        logs.configure(stream=stream, capture_content=True)
        structlog.get_logger("x").info("event", **fields)
        assert hidden not in stream.getvalue()
        assert "[redacted]" in stream.getvalue()

    def test_a_traceback_stays_on_its_line(self) -> None:
        """An exception is a field of one JSON line, not forty lines of text."""
        stream = io.StringIO()
        logs.configure(stream=stream)
        try:
            raise RuntimeError("boom")
        except RuntimeError:
            structlog.get_logger("x").exception("failed")
        (line,) = lines(stream)
        assert "RuntimeError: boom" in line["exception"]

    def test_the_level_holds_for_both_kinds(self) -> None:
        """Below the level nothing is written."""
        stream = io.StringIO()
        logs.configure("WARNING", stream=stream)
        structlog.get_logger("x").info("no")
        logging.getLogger("y").info("no")
        structlog.get_logger("x").warning("yes")
        assert [line["event"] for line in lines(stream)] == ["yes"]
