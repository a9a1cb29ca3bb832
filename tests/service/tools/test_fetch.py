"""The fetch tool: connects to checked public addresses only, within its bounds, whatever URL, DNS or redirect says."""

from __future__ import annotations

import gzip
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from service.backends import transport
from service.tools.base import ToolError
from service.tools.fetch import Fetcher, Limits, readable

pytestmark = pytest.mark.in_image

PUBLIC = "93.184.216.34"


def only_loopback(address: str) -> str | None:
    """Turns the rule round, so that a local server can stand for the public web."""
    return None if ipaddress.ip_address(address).is_loopback else "is not our server"


class Names:
    """A resolver that answers from a table; a list of answers is used up one by one (rebinding)."""

    def __init__(self, **table: Sequence[Sequence[str]]) -> None:
        self.table = {name.replace("_", "."): list(answers) for name, answers in table.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.table.get(host)
        if not answers:
            raise OSError("no such host")
        return answers.pop(0) if len(answers) > 1 else answers[0]


class Web:
    """A local web server; `pages` maps a path to a handler function."""

    def __init__(self) -> None:
        self.pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.seen: list[tuple[str, str]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.seen.append((self.headers["Host"], self.path))
                try:
                    web.pages[self.path](self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def page(self, path: str, body: bytes, **headers: str) -> None:
        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            for name, value in {"Content_Type": "text/plain", **headers}.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        self.pages[path] = send

    def redirect(self, path: str, location: str) -> None:
        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        self.pages[path] = send


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    web.thread.start()
    yield web
    web.server.shutdown()
    web.thread.join()
    web.server.server_close()


def fetcher(web: Web, names: Names, **limits: Any) -> Fetcher:
    return Fetcher(None, Limits(**limits), names, frozenset({web.port}), only_loopback)


class TestFetch:
    def test_a_page_is_read_by_its_name(self, web: Web) -> None:
        """The server sees the name in Host although the connection goes to the address; HTML becomes text."""
        web.page(
            "/a?q=1",
            b"<title>T &amp; x</title><p>Hello<script>evil()</script> <b>there</b></p>",
            Content_Type="text/html",
        )
        url = f"http://A.test:{web.port}/a?q=1#frag"
        text = anyio.run(fetcher(web, Names(a_test=[["127.0.0.1"]])).fetch, url)
        assert text == f"200 text/html {url}\n# T & x\nHello there"
        assert web.seen == [(f"a.test:{web.port}", "/a?q=1")]

    def test_rebinding_changes_nothing(self, web: Web) -> None:
        """A name is resolved once for a hop; a second answer is never used."""
        web.page("/", b"ok")
        names = Names(a_test=[["127.0.0.1"], ["10.0.0.1"]])
        assert anyio.run(fetcher(web, names).fetch, f"http://a.test:{web.port}/").endswith("\nok")
        assert names.asked == ["a.test"]

    def test_one_bad_address_spoils_the_name(self, web: Web) -> None:
        """Every address is checked, not only the first."""
        names = Names(a_test=[["127.0.0.1", "10.0.0.1"]])
        with pytest.raises(ToolError, match="public"):
            anyio.run(fetcher(web, names).fetch, f"http://a.test:{web.port}/")
        assert web.seen == []

    @pytest.mark.parametrize(
        "location",
        ["http://inner.test:{port}/", "//inner.test:{port}/", "http://10.0.0.1:{port}/", "file:///etc/passwd"],
    )
    def test_a_redirect_is_checked_like_the_first_hop(self, web: Web, location: str) -> None:
        """To an inner name, an inner address or another scheme it ends there."""
        web.redirect("/", location.format(port=web.port))
        names = Names(a_test=[["127.0.0.1"]], inner_test=[["10.0.0.1"]])
        names.table["10.0.0.1"] = [["10.0.0.1"]]
        with pytest.raises(ToolError, match=r"public|Only http"):
            anyio.run(fetcher(web, names).fetch, f"http://a.test:{web.port}/")
        assert len(web.seen) == 1

    def test_redirects_are_followed_and_bounded(self, web: Web) -> None:
        """Relative ones too; a loop ends."""
        web.redirect("/a", "b")
        web.page("/b", b"there")
        web.redirect("/loop", "/loop")
        names = Names(a_test=[["127.0.0.1"]])
        assert anyio.run(fetcher(web, names).fetch, f"http://a.test:{web.port}/a").endswith("/b\nthere")
        with pytest.raises(ToolError, match="Too many redirects"):
            anyio.run(fetcher(web, names).fetch, f"http://a.test:{web.port}/loop")

    def test_a_small_page_cannot_become_a_big_one(self, web: Web) -> None:
        """A compression bomb ends at the limit, unpacked piece by piece."""
        web.page("/bomb", gzip.compress(b"\0" * 30_000_000), Content_Encoding="gzip")
        web.page("/fine", gzip.compress(b"fine"), Content_Encoding="gzip")
        web.page("/broken", b"\x1f\x8bnonsense", Content_Encoding="gzip")
        web.page("/br", b"x", Content_Encoding="br")
        get = fetcher(web, Names(a_test=[["127.0.0.1"]]), unpacked=1_000_000).fetch
        assert anyio.run(get, f"http://a.test:{web.port}/fine").endswith("\nfine")
        for path, said in (("bomb", "1000000 bytes when unpacked"), ("broken", "broken"), ("br", "not asked for")):
            with pytest.raises(ToolError, match=said):
                anyio.run(get, f"http://a.test:{web.port}/{path}")

    def test_size_and_time_are_bounded(self, web: Web) -> None:
        """A long page, an endless one, and a slow one."""
        web.page("/long", b"x" * 200_000)
        web.page("/text", b"word " * 5_000)

        def slow(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/plain")
            handler.end_headers()
            for _ in range(200):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)

        web.pages["/slow"] = slow
        names = Names(a_test=[["127.0.0.1"]])
        with pytest.raises(ToolError, match="longer than 100000 bytes"):
            anyio.run(fetcher(web, names, wire=100_000).fetch, f"http://a.test:{web.port}/long")
        assert anyio.run(fetcher(web, names).fetch, f"http://a.test:{web.port}/text").endswith(
            "[cut after 20000 characters]"
        )
        start = time.monotonic()
        with pytest.raises(ToolError, match=r"No answer within 0\.3 s"):
            anyio.run(fetcher(web, names, seconds=0.3).fetch, f"http://a.test:{web.port}/slow")
        assert time.monotonic() - start < 8

    def test_only_text_is_returned(self, web: Web) -> None:
        """A picture is refused by its type; an unknown charset is no crash."""
        web.page("/png", b"\x89PNG", Content_Type="image/png")
        web.page("/odd", "héé".encode(), Content_Type="text/plain; charset=klingon")
        get = fetcher(web, Names(a_test=[["127.0.0.1"]])).fetch
        with pytest.raises(ToolError, match="Not a text: image/png"):
            anyio.run(get, f"http://a.test:{web.port}/png")
        assert "héé" in anyio.run(get, f"http://a.test:{web.port}/odd")

    def test_a_server_that_is_not_there_is_the_models_business(self) -> None:
        """One sentence, no traceback."""
        fetch = Fetcher(None, Limits(), Names(a_test=[["127.0.0.1"]]), frozenset({9}), only_loopback)
        with pytest.raises(ToolError, match="cannot be read"):
            anyio.run(fetch.fetch, "http://a.test:9/")

    def test_https_checks_the_name_not_the_address(
        self, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The certificate must be for the host in the URL, although the connection goes to an address."""
        authority = _certificate(tmp_path, "a.test")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority)
        web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
        web.page("/", b"secure")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        transport._certificates.cache_clear()
        try:
            names = Names(a_test=[["127.0.0.1"]], b_test=[["127.0.0.1"]])
            assert anyio.run(fetcher(web, names).fetch, f"https://a.test:{web.port}/").endswith("\nsecure")
            with pytest.raises(ToolError, match="cannot be read"):
                anyio.run(fetcher(web, names).fetch, f"https://b.test:{web.port}/")
        finally:
            transport._certificates.cache_clear()


class TestReadable:
    def test_pages_that_leave_tags_open_keep_their_text(self) -> None:
        """HTML lets authors leave out the end of head and p."""
        assert readable("<head><title>T</title><p>one<p>two<style>x{}</style>") == "# T\none\ntwo"


def _certificate(folder: Path, name: str) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "cert.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
