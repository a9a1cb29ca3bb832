"""The tables of the run store. A run is its row in `runs` plus its numbered `events`; the log is the truth.

Times are seconds since 1970 (UTC). JSON lives in text columns as ASCII, which SQLite and PostgreSQL keep alike, and
which can hold characters (such as U+0000) that a PostgreSQL string cannot.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect


class Json(TypeDecorator[Any]):
    """A JSON value as ASCII text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("key_id", String(40), nullable=False),  # "" in open mode
    Column("session_id", String(96), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("status", String(16), nullable=False),  # queued, running, ended
    Column("outcome", String(32)),
    Column("request", Json, nullable=False),
    Column("variant", Json, nullable=False),
    Column("summary", Json),  # of an ended run: output, usage, error
    Column("feedback", Json),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("next_seq", Integer, nullable=False),
    Column("owner", String(40)),  # the process that works on it
    Column("lease_until", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cancel", String(32)),  # why it is to stop
    Index("runs_by_key", "key_id", "created_at", "id"),
    Index("runs_by_session", "session_id", "created_at"),
    Index("runs_open", "status", "lease_until"),
)

events = Table(
    "events",
    metadata,
    Column("run_id", String(40), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("type", String(32), nullable=False),
    Column("data", Json, nullable=False),
    Column("at", Float, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("key_id", String(40), nullable=False),
    Column("variant", String(32), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("active_run", String(40)),
    Index("sessions_by_key", "key_id", "updated_at"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", String(40), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("run_id", String(40), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Float, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("hash", String(64), nullable=False),  # SHA-256 of the secret, which has 256 random bits
    Column("scopes", Json, nullable=False),
    Column("limits", Json, nullable=False),  # rpm, tpm, concurrency where they differ from the settings
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
    UniqueConstraint("hash", name="api_keys_hash"),
)

features = Table(
    "run_features",
    metadata,
    Column("run_id", String(40), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("at", Float, nullable=False),
    Column("agent", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("model_digest", String(80), nullable=False),
    Column("variant", String(32), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("finish_reason", String(16), nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("turns", Integer, nullable=False),
    Column("tool_calls", Integer, nullable=False),
    Column("tool_errors", Integer, nullable=False),
    Column("tools", Json, nullable=False),
    Column("script", String(16), nullable=False),  # the answer's main writing system
    Column("refusal", Integer, nullable=False),
    Column("json_valid", Integer),  # null: the answer does not look like JSON
    Column("user_retry", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("ttft_seconds", Float),
    Column("tokens_per_second", Float),
    Column("thumbs", Integer),
    Index("run_features_by_time", "at"),
)
