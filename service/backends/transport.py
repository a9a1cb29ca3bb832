"""HTTP towards other servers: one pooled client behind a small interface. The only module that knows httpx.

    transport = Transport("http://127.0.0.1:11434", connections=8)
    async with transport.open("POST", "/api/chat", json={…}) as reply:
        async for line in reply.lines(): …

Leaving the block early closes the connection, which is how an upstream learns that nobody listens any more. What
can fail is one of these:

    TransportError
    ├── Unreachable   no connection: refused, no such host, handshake failed
    ├── Silent        connected, then nothing for longer than the limit; `waited` in seconds
    └── Broken        the connection ended in the middle, or what came was not HTTP
"""

from __future__ import annotations

import json as jsonlib
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

MAX_LINE = 16 * 1024 * 1024
"""Longest line of a reply, in bytes; a longer one is not read to its end."""


class TransportError(Exception):
    """A request did not go through; the text says what and where."""


class Unreachable(TransportError):
    """No connection came about."""


class Silent(TransportError):
    """Nothing came for too long."""

    def __init__(self, message: str, waited: float) -> None:
        super().__init__(message)
        self.waited = waited


class Broken(TransportError):
    """The connection ended early or its bytes made no sense."""


class TooLong(TransportError):
    """The reply is longer than the caller allows."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, to the first byte of a reply, and between two of its bytes."""

    connect: float = 5.0
    first_byte: float = 60.0
    stall: float = 60.0


class Reply:
    """A reply whose body is still to be read, once, in one of three ways."""

    def __init__(self, response: httpx.Response, place: str, stall: float) -> None:
        self._response = response
        self._place = place
        self._stall = stall
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The body's bytes as they come, still encoded if the server compressed them."""
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except httpx.HTTPError as error:
            raise _translate(error, self._place, self._stall) from error

    async def lines(self) -> AsyncIterator[bytes]:
        """The body's lines without their ends; empty ones are left out."""
        parts: list[bytes] = []
        size = 0
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                if b"\n" not in chunk:
                    parts.append(chunk)
                    size += len(chunk)
                    if size > MAX_LINE:
                        raise Broken(f"The reply has a line of more than {MAX_LINE} bytes: {self._place}.")
                    continue
                parts.append(chunk)
                *lines, rest = b"".join(parts).split(b"\n")
                parts, size = [rest], len(rest)
                for line in lines:
                    if line.strip():
                        yield line
        rest = b"".join(parts)
        if rest.strip():
            yield rest

    async def read(self, limit: int = MAX_LINE) -> bytes:
        """The whole body. Raises TooLong beyond `limit` bytes."""
        parts: list[bytes] = []
        size = 0
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise TooLong(f"The reply is longer than {limit} bytes: {self._place}.")
                parts.append(chunk)
        return b"".join(parts)

    async def json(self) -> Any:
        """The body as JSON. Raises Broken if it is none."""
        body = await self.read()
        try:
            return jsonlib.loads(body)
        except ValueError:
            raise Broken(f"The reply is not JSON: {body[:80]!r} from {self._place}.") from None


class Transport:
    """A pool of connections to one server."""

    def __init__(
        self,
        base_url: str = "",
        *,
        connections: int = 16,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        use_environment: bool = False,
    ) -> None:
        """`connections` bounds the pool: the admission gate lets in fewer, so nobody ever waits for the pool.

        `use_environment` honours proxy variables; a local server must not be asked through a proxy.
        """
        self.base_url = base_url.rstrip("/")
        self.timeouts = timeouts or Timeouts()
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            headers={"Accept-Encoding": "identity", **(headers or {})},
            follow_redirects=False,
            trust_env=use_environment,
            verify=_certificates(),
        )

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeouts: Timeouts | None = None,
        server_name: str | None = None,
    ) -> AsyncGenerator[Reply]:
        """Send a request; the block gets the reply as soon as its headers are there.

        `server_name` is the name to check the certificate against where the address holds an IP. Raises
        TransportError, also out of the block while the body is read.
        """
        url = path if "://" in path else self.base_url + path
        limits = timeouts or self.timeouts
        place = f"{method} {url}"
        # The client reads this mapping again for every read, so the limit can change after the headers.
        timeout: dict[str, float] = {
            "connect": limits.connect,
            "read": limits.first_byte,
            "write": limits.stall,
            "pool": limits.first_byte,
        }
        extensions: dict[str, Any] = {"timeout": timeout}
        if server_name:
            extensions["sni_hostname"] = server_name
        sent = dict(headers or {})
        content: bytes | None = None
        if json is not None:
            content = jsonlib.dumps(json, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            sent["Content-Type"] = "application/json"
        try:
            request = self._client.build_request(method, url, content=content, headers=sent, extensions=extensions)
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
            raise _translate(error, place, limits.first_byte) from error
        timeout["read"] = limits.stall
        try:
            yield Reply(response, place, limits.stall)
        finally:
            await response.aclose()

    async def call(self, method: str, path: str, *, json: Any = None, timeouts: Timeouts | None = None) -> Any:
        """Send a small request; its status and its JSON body (`{}` if that is no object)."""
        async with self.open(method, path, json=json, timeouts=timeouts) as reply:
            body = await reply.json()
        return reply.status, body

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


@cache
def _certificates() -> ssl.SSLContext:
    """The certificates to trust: those the environment names (a company's own), else the ones httpx brings."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context()
    return httpx.create_ssl_context(trust_env=False)


def _translate(error: Exception, place: str, waited: float) -> TransportError:
    detail = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return Unreachable(f"No connection: {detail}: {place}.")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.ProxyError)):
        return Unreachable(f"Bad address: {detail}: {place}.")
    if isinstance(error, httpx.TimeoutException):
        return Silent(f"No byte for {waited:g} s: {place}.", waited)
    return Broken(f"The connection broke: {detail}: {place}.")
