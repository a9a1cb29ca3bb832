"""Reads a page of the public web for a model, and nothing else: no inner network, no metadata service, no rebinding.

Each hop of a request goes through the same steps: check the URL, resolve the name once, check *every* address it
has, and connect to one of those very addresses with the name in `Host` and in the certificate check. A redirect is
a new hop. So what is checked is what is connected to. Bounds: time, hops, bytes on the wire and after unpacking.
"""

from __future__ import annotations

import html
import re
import socket
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Annotated
from urllib.parse import urljoin, urlsplit

import anyio
import anyio.to_thread
from pydantic import Field

from service.backends.transport import Reply, Timeouts, Transport, TransportError
from service.tools.addresses import blocked
from service.tools.base import ToolError
from service.tools.function import FunctionTool, tool

MAX_URL = 2048
PORTS = {"http": 80, "https": 443}

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a host name and a port to all its addresses."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds for the whole fetch, redirects followed, bytes read, bytes after unpacking, characters returned."""

    seconds: float = 20.0
    redirects: int = 5
    wire: int = 2 * 1024 * 1024
    unpacked: int = 8 * 1024 * 1024
    characters: int = 20_000


@dataclass(frozen=True, slots=True)
class Target:
    """A hop that passed the checks: where to connect, and as whom."""

    scheme: str
    host: str
    port: int
    path: str
    address: str

    @property
    def url(self) -> str:
        """The URL to connect to, with the address in place of the name."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def host_header(self) -> str:
        """The name, with the port if it is not the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == PORTS[self.scheme] else f"{name}:{self.port}"


async def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, from the system's resolver."""
    found = await anyio.to_thread.run_sync(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), abandon_on_cancel=True
    )
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass
class Fetcher:
    """Fetches by the rules above. `only`: the host names allowed (None: any public one); `ports`: the ports."""

    only: frozenset[str] | None = None
    limits: Limits = field(default_factory=Limits)
    resolver: Resolver = resolve
    ports: frozenset[int] = frozenset({80, 443})
    refuse: Callable[[str], str | None] = blocked

    async def fetch(self, url: str) -> str:
        """The text at `url`, with its final address and type on the first line. Raises ToolError."""
        try:
            with anyio.fail_after(self.limits.seconds):
                return await self._follow(url)
        except TimeoutError:
            raise ToolError(f"No answer within {self.limits.seconds:g} s: {url[:200]}.") from None
        except TransportError as error:
            raise ToolError(f"The page cannot be read: {type(error).__name__.lower()}: {url[:200]}.") from error

    async def check(self, url: str) -> Target:
        """Where a request for `url` would connect to. Raises ToolError if it must not be made."""
        scheme, host, port, path = _split(url)
        if port not in self.ports:
            raise ToolError(f"Port {port} is not allowed: {url[:200]}.")
        if self.only is not None and host not in self.only:
            raise ToolError(f"Not one of the hosts allowed here: {host}. Allowed: {', '.join(sorted(self.only))}.")
        try:
            addresses = await self.resolver(host, port)
        except (OSError, UnicodeError):
            addresses = ()
        if not addresses:
            raise ToolError(f"There is no such host: {host}.")
        for address in addresses:
            try:
                reason = self.refuse(address)
            except ValueError:
                reason = f"{address!r} is no address"
            if reason:
                raise ToolError(f"Only public addresses are allowed: {host}: {reason}.")
        return Target(scheme, host, port, path, addresses[0])

    async def _follow(self, url: str) -> str:
        for _ in range(self.limits.redirects + 1):
            target = await self.check(url)
            transport = Transport(timeouts=Timeouts(5.0, self.limits.seconds, self.limits.seconds), connections=1)
            headers = {
                "Host": target.host_header,
                "User-Agent": "agent-loop-fetch/1",
                "Accept": "text/html, text/plain, application/json;q=0.9, text/*;q=0.8",
                "Accept-Encoding": "gzip, identity",
            }
            name = target.host if target.scheme == "https" else None
            try:
                async with transport.open("GET", target.url, headers=headers, server_name=name) as reply:
                    location = reply.headers.get("location")
                    if reply.status in (301, 302, 303, 307, 308) and location:
                        url = urljoin(url, location)
                        continue
                    return await self._text(reply, url)
            finally:
                await transport.aclose()
        raise ToolError(f"Too many redirects: more than {self.limits.redirects}: {url[:200]}.")

    async def _text(self, reply: Reply, url: str) -> str:
        kind = reply.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
        if not (kind.startswith("text/") or kind in ("application/json", "application/xml", "application/xhtml+xml")):
            raise ToolError(f"Not a text: {kind}: {url[:200]}.")
        body = await _unpack(reply, self.limits)
        charset = re.search(r"charset=[\"']?([\w.-]+)", reply.headers.get("content-type", ""))
        try:
            text = body.decode(charset.group(1) if charset else "utf-8", "replace")
        except LookupError:
            text = body.decode("utf-8", "replace")
        if "html" in kind:
            text = readable(text)
        if len(text) > self.limits.characters:
            text = text[: self.limits.characters] + f"\n[cut after {self.limits.characters} characters]"
        return f"{reply.status} {kind} {url}\n{text}"


def create(only: Sequence[str] = (), seconds: float = 20.0) -> FunctionTool:
    """The fetch tool; `only` limits it to these host names."""
    fetcher = Fetcher(frozenset(host.lower() for host in only) or None, Limits(seconds=seconds))

    @tool(name="fetch", idempotent=True, timeout=seconds + 5)
    async def fetch(url: Annotated[str, Field(description="An http or https URL on the public web.")]) -> str:
        """Read a web page as text. Public addresses only; no other methods than GET."""
        return await fetcher.fetch(url)

    return fetch


def _split(url: str) -> tuple[str, str, int, str]:
    """Scheme, host in lower case without a last dot, port, and path with query. Raises ToolError."""
    shown = url[:200]
    if len(url) > MAX_URL:
        raise ToolError(f"The URL is too long: {len(url)} characters; {MAX_URL} are allowed.")
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise ToolError(f"The URL has a space, a backslash or a control character: {shown!r}.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ToolError(f"Not a URL: {shown!r}: {error}.") from None
    if parts.scheme not in PORTS:
        raise ToolError(f"Only http and https are allowed: {shown!r}.")
    if parts.username is not None or parts.password is not None:
        raise ToolError("A URL with a user name is not allowed.")
    host = (parts.hostname or "").rstrip(".")
    if "%" in host:
        raise ToolError(f"Not a host name: {host[:200]!r}.")
    try:
        host = host if ":" in host else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        host = ""
    if not host:
        raise ToolError(f"The URL has no host name: {shown!r}.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, host, port if port is not None else PORTS[parts.scheme], path


async def _unpack(reply: Reply, limits: Limits) -> bytes:
    """The body, unpacked piece by piece so that a small one cannot become a big one."""
    encoding = reply.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise ToolError(f"The page has an encoding that was not asked for: {encoding[:40]}.")
    packed = encoding in ("gzip", "x-gzip")
    unpacker = zlib.decompressobj(wbits=31) if packed else None
    parts: list[bytes] = []
    read = size = 0
    async for chunk in reply.chunks():
        read += len(chunk)
        if read > limits.wire:
            raise ToolError(f"The page is longer than {limits.wire} bytes.")
        try:
            piece = unpacker.decompress(chunk, limits.unpacked - size + 1) if unpacker else chunk
        except zlib.error:
            raise ToolError("The page's compression is broken.") from None
        size += len(piece)
        if size > limits.unpacked:
            raise ToolError(f"The page is longer than {limits.unpacked} bytes when unpacked.")
        parts.append(piece)
    return b"".join(parts)


class _Reader(HTMLParser):
    """Collects what a reader would see."""

    SILENT = frozenset({"script", "style", "noscript", "template", "svg", "title"})
    BLOCK = frozenset({"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "pre"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.SILENT:
            self._silent += 1
        if tag in self.BLOCK:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.SILENT and self._silent:
            self._silent -= 1
        if tag in self.BLOCK:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


def readable(page: str) -> str:
    """An HTML page's title and text, one block a line."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).split("\n"))
    text = "\n".join(line for line in lines if line)
    title = re.search(r"<title[^>]*>([^<]{1,300})", page, re.IGNORECASE)
    return (f"# {' '.join(html.unescape(title.group(1)).split())}\n" if title else "") + text
