"""Who may call, and what: API keys with scopes, or open mode on loopback.

A key reads `al_<id>_<secret>`; the store keeps the SHA-256 of the secret, which has 256 random bits, so there is
nothing to guess and no slow hash is needed. While no key exists and the service listens on loopback only, it is
open: then `Host` (DNS rebinding) and `Origin` (other sites in the person's browser) are checked instead.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from service.errors import Forbidden, StartupError, Unauthenticated
from service.settings import Settings, is_loopback
from service.store import Store
from service.store.keys import KeyRecord, KeyStore

SCOPES = ("chat", "runs", "admin")
"""`chat`: the OpenAI endpoints. `runs`: runs and sessions. `admin`: every key's runs."""

CACHE_SECONDS = 5.0
"""How long a process believes what it read of a key: a revocation takes effect within this time."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller. `key_id` is "" in open mode and owns what that caller makes."""

    key_id: str
    scopes: frozenset[str]
    limits: dict[str, int] = field(default_factory=dict[str, int])

    def require(self, scope: str) -> None:
        """Raises Forbidden without the scope."""
        if scope not in self.scopes:
            raise Forbidden(f"The API key may not do this: it lacks the scope '{scope}'. Use another key.")

    @property
    def sees(self) -> str | None:
        """The key id whose runs it may see; None: everybody's."""
        return None if "admin" in self.scopes else self.key_id


OPEN = Principal("", frozenset(SCOPES))


def make_key(name: str, scopes: tuple[str, ...], limits: dict[str, int] | None = None) -> tuple[str, KeyRecord]:
    """A new key: its text, to be shown once, and the record for the store."""
    key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    record = KeyRecord(key_id, name, _hash(secret), scopes, limits or {}, time.time())
    return f"al_{key_id}_{secret}", record


class Authenticator:
    """Turns a request's headers into a Principal."""

    def __init__(self, settings: Settings, keys: KeyStore) -> None:
        self._settings = settings
        self._keys = keys
        self._bootstrap = settings.api_key.get_secret_value() if settings.api_key else None
        self._cache: dict[str, tuple[float, KeyRecord | None]] = {}
        self._open_until = 0.0
        self._closed = self._bootstrap is not None or not settings.open_by_address

    async def __call__(self, headers: Headers) -> Principal:
        """Raises Unauthenticated or Forbidden."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if await self._is_open():
            self._check_origin(headers)
            return OPEN
        if not token:
            raise Unauthenticated("No API key. Send 'Authorization: Bearer KEY'.", code="missing_api_key")
        return await self._of(token)

    async def _of(self, token: str) -> Principal:
        wrong = Unauthenticated("The API key is not valid. Check it with 'agent-loop keys list'.")
        if self._bootstrap is not None and hmac.compare_digest(token.encode(), self._bootstrap.encode()):
            return Principal("bootstrap", frozenset(SCOPES))
        parts = token.split("_", 2)
        if len(parts) != 3 or parts[0] != "al" or not (parts[1].isascii() and parts[1].isalnum()):
            raise wrong
        record = await self._record(parts[1][:40])
        good = record is not None and hmac.compare_digest(_hash(parts[2]), record.hash)
        if record is None or not good or record.revoked_at is not None:
            raise wrong
        return Principal(record.id, frozenset(record.scopes), record.limits)

    async def _record(self, key_id: str) -> KeyRecord | None:
        now = time.monotonic()
        known = self._cache.get(key_id)
        if known is not None and known[0] > now:
            return known[1]
        if len(self._cache) > 10_000:  # ids that do not exist must not fill the memory
            self._cache.clear()
        record = await self._keys.get(key_id)
        self._cache[key_id] = (now + CACHE_SECONDS, record)
        return record

    async def _is_open(self) -> bool:
        if self._closed:
            return False
        now = time.monotonic()
        if now >= self._open_until:
            if await self._keys.any_active():
                # From the first key on for good: revoking the last one must not open the door again.
                self._closed = True
                return False
            self._open_until = now + CACHE_SECONDS
        return True

    def _check_origin(self, headers: Headers) -> None:
        allowed = self._settings.allowed_hosts
        host = _name(headers.get("host", ""))
        if not (is_loopback(host) or host in allowed):
            raise Forbidden(
                f"Without API keys only loopback names are served, not Host '{host[:100]}'. "
                "Make a key with 'agent-loop keys create', or set AGENT_LOOP_ALLOWED_HOSTS.",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is None:
            return
        try:
            name = urlsplit(origin).hostname or ""
        except ValueError:
            name = ""
        if not (is_loopback(name) or name in allowed):
            raise Forbidden(
                f"Without API keys other web pages may not call: Origin '{origin[:100]}'. "
                "Make a key with 'agent-loop keys create'.",
                code="origin_not_allowed",
            )


async def check_before_start(settings: Settings) -> None:
    """Open the store once (which migrates it) and refuse to serve the world without a key. Raises StartupError."""
    store = await Store.open(settings.database())
    try:
        await check_keys(settings, store.keys)
    finally:
        await store.aclose()


async def check_keys(settings: Settings, keys: KeyStore) -> None:
    """Raises StartupError if others could reach a service that asks nobody for a key."""
    if settings.open_by_address or settings.api_key is not None or await keys.any_active():
        return
    raise StartupError(
        f"No API key exists, and others can reach this address: {settings.host}.",
        "Make one with 'agent-loop keys create NAME', set AGENT_LOOP_API_KEY_FILE, or listen on 127.0.0.1.",
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    text = host.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0].lstrip("[")
    return text.partition(":")[0]
