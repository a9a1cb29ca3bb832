"""The proxy, on a real nginx with real upstreams: streams, stickiness, shares, limits, TLS, new addresses."""

from __future__ import annotations

import json
import re
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from observability.nginx.render import Proxy, ProxyError, Split, render, render_split, write, write_split
from tests.fakes.dns import NameServer
from tests.fakes.programs import Programs, find, free_port, run

pytestmark = pytest.mark.in_image

CHUNKS = 5
HTTP = httpx.Client(timeout=30)


@pytest.fixture(scope="module", autouse=True)
def _close() -> Iterator[None]:
    yield
    HTTP.close()


class Upstream:
    """A service that says its name, echoes what reached it, and streams at /stream: each event only after the last one
    was acknowledged with `seen`, so that a proxy which holds events back shows itself without a clock."""

    def __init__(self, name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self.seen = threading.Semaphore(0)
        self.gave_up = False
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/stream"):
                    self._stream(chunked=self.path == "/stream")
                    return
                headers = {key.lower(): value for key, value in self.headers.items()}
                text = json.dumps({"name": name, "path": self.path, "headers": headers, "size": len(body)}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def _stream(self, *, chunked: bool) -> None:
                self.close_connection = not chunked
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header(*("Transfer-Encoding", "chunked") if chunked else ("Connection", "close"))
                self.end_headers()
                for number in range(CHUNKS):
                    event = f"data: {number}\n\n".encode()
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n" if chunked else event)
                    self.wfile.flush()
                    if not upstream.seen.acquire(timeout=5):
                        upstream.gave_up = True
                if chunked:
                    self.wfile.write(b"0\r\n\r\n")

            do_GET = do_POST = _reply

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.1})
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def upstreams() -> Iterator[tuple[Upstream, Upstream]]:
    """A stable service and a canary."""
    pair = Upstream("stable"), Upstream("canary")
    yield pair
    for each in pair:
        each.close()


@pytest.fixture(scope="module")
def plain(upstreams: tuple[Upstream, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Proxy:
    """A proxy without TLS in front of both, that trusts nobody and lets this test's many requests through."""
    folder = str(tmp_path_factory.mktemp("nginx"))
    stable, canary = (f"127.0.0.1:{each.port}" for each in upstreams)
    return Proxy(
        tls=False, http_port=free_port(), stable=stable, canary=canary, grafana="", folder=folder, temp=folder,
        rate=10000, burst=10000, connections=1000, body_limit="1m", resolver="127.0.0.1",
    )  # fmt: skip


def start(programs: Programs, proxy: Proxy, split: Split | None = None, *, scheme: str = "http") -> str:
    """Write the configuration, let nginx check it, start it; returns its address."""
    folder = Path(proxy.folder)
    write(proxy, folder, split)
    nginx = find("nginx", "nginx")
    # Started by root it would give its files to `nobody`, who may not enter this test's folder.
    command = [nginx, "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", "daemon off; user root;"]
    run(*command[:-1], "user root;", "-t")
    url = f"{scheme}://127.0.0.1:{proxy.https_port if scheme == 'https' else proxy.http_port}"
    programs.start(command, f"{url}/health")
    return url


def reload(proxy: Proxy, url: str, wanted: str) -> None:
    """Reload nginx and wait until a session of the canary's goes to `wanted`."""
    nginx = find("nginx", "nginx")
    run(nginx, "-c", f"{proxy.folder}/nginx.conf", "-e", "stderr", "-g", "user root;", "-s", "reload")
    deadline = time.monotonic() + 20
    while served_by(url, "sess_canary_00") != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)  # old workers stop accepting


def served_by(url: str, session: str) -> str:
    """Which upstream answers a request of this session."""
    return HTTP.get(f"{url}/v1/runs", headers={"X-Session-Id": session}).json()["name"]


def shares(url: str, count: int = 2000) -> Counter[str]:
    """How many of `count` new sessions go where."""
    return Counter(HTTP.post(f"{url}/v1/sessions").json()["name"] for _ in range(count))


class TestRendering:
    """The text, without nginx running."""

    def test_no_percent_means_no_line(self) -> None:
        """At 0 % the canary has no line, which nginx would refuse; at 100 % it takes all."""
        assert "canary;" not in render_split(Split(0))
        assert re.findall(r"\S+ (?:canary|stable);", render_split(Split(100)).split("map")[0]) == ["* canary;"]
        assert "12.5% canary;" in render_split(Split(12.5))

    @pytest.mark.parametrize("percent", [-1, 101, float("nan")])
    def test_impossible_percentages_are_refused(self, percent: float) -> None:
        """Only 0 to 100 can be split."""
        with pytest.raises(ProxyError, match="Use 0 to 100"):
            render_split(Split(percent))

    @pytest.mark.parametrize(
        "bad",
        [
            {"stable": "agent:8000; return 200"},
            {"server_name": "a.example; }"},
            {"trusted": ("10.0.0.0/8 1; default",)},
            {"certificate": "/etc/x\n"},
        ],
    )
    def test_values_cannot_break_out(self, bad: dict[str, object]) -> None:
        """A value with a semicolon, brace or newline is refused by name."""
        with pytest.raises(ProxyError, match=next(iter(bad))):
            render(Proxy(**bad))  # type: ignore[arg-type]

    @pytest.mark.parametrize("percent", [0, 0.5, 10, 50, 99.99, 100])
    def test_nginx_accepts_every_step(self, percent: float, tmp_path: Path) -> None:
        """`nginx -t` accepts the configuration at each percentage."""
        write(Proxy(tls=False, folder=str(tmp_path), temp=str(tmp_path)), tmp_path, Split(percent))
        run(find("nginx", "nginx"), "-t", "-e", "stderr", "-c", tmp_path / "nginx.conf", "-g", "user root;")

    def test_rewriting_leaves_no_part_behind(self, tmp_path: Path) -> None:
        """Files are replaced whole."""
        write(Proxy(), tmp_path)
        write_split(Split(25), tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["acme", "nginx.conf", "split.conf"]
        assert "25% canary" in (tmp_path / "split.conf").read_text()


@pytest.fixture(scope="module")
def url(programs: Programs, plain: Proxy) -> str:
    """The address of the plain proxy, with half of the new sessions for the canary."""
    return start(programs, plain, Split(50))


class TestProxy:
    """One nginx in front of both upstreams, half of the new sessions for the canary."""

    @pytest.mark.parametrize("path", ["/stream", "/stream-until-closed"])
    def test_gaps_between_events_survive(self, path: str, url: str, upstreams: tuple[Upstream, Upstream]) -> None:
        """Each event reaches the client before the service sends the next: nothing is held back."""
        events: list[str] = []
        with HTTP.stream("GET", url + path, headers={"X-Session-Id": "sess_stable_0a"}, timeout=60) as reply:
            for line in reply.iter_lines():
                if line.startswith("data:"):
                    events.append(line)
                    upstreams[0].seen.release()
        assert events == [f"data: {number}" for number in range(CHUNKS)]
        assert not upstreams[0].gave_up

    def test_a_session_keeps_its_variant(self, url: str) -> None:
        """The same id, issued by us or made by a client, always lands on the same side; different ids on both."""
        for _ in range(5):
            assert served_by(url, "sess_canary_0a1b2c") == "canary"
            assert served_by(url, "sess_stable_0a1b2c") == "stable"
        ids = [secrets.token_hex(8) for _ in range(40)]
        first = {each: served_by(url, each) for each in ids}
        assert set(first.values()) == {"stable", "canary"}
        assert {each: served_by(url, each) for each in ids} == first

    def test_the_session_in_path_or_query_counts_too(self, url: str) -> None:
        """A request about a session goes to its variant without the header."""
        for variant in ("stable", "canary"):
            for _ in range(4):
                for path in (f"/v1/sessions/sess_{variant}_0a", f"/v1/runs?session_id=sess_{variant}_0a"):
                    assert HTTP.get(url + path).json()["name"] == variant

    def test_a_key_without_session_stays_on_one_side(self, url: str) -> None:
        """Calls that name no session are held together by their key."""
        sides: set[str] = set()
        for number in range(20):
            headers = {"Authorization": f"Bearer key-{number}"}
            names = {HTTP.post(f"{url}/v1/chat/completions", headers=headers).json()["name"] for _ in range(3)}
            assert len(names) == 1
            sides |= names
        assert sides == {"stable", "canary"}

    def test_x_variant_is_not_heard_from_strangers(self, url: str) -> None:
        """The header neither chooses the variant nor reaches the service."""
        for variant in ("stable", "canary"):
            headers = {"X-Session-Id": "sess_stable_0a", "X-Variant": variant}
            reply = HTTP.get(f"{url}/v1/runs", headers=headers).json()
            assert reply["name"] == "stable"
            assert "x-variant" not in reply["headers"]

    def test_forwarded_headers_cannot_be_forged(self, url: str) -> None:
        """The service sees the real address and scheme, and a request id."""
        reply = HTTP.get(f"{url}/x", headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}).json()
        assert reply["headers"]["x-forwarded-for"] == "127.0.0.1"
        assert reply["headers"]["x-forwarded-proto"] == "http"
        assert re.fullmatch(r"[0-9a-f]{32}", reply["headers"]["x-request-id"])

    def test_metrics_stay_inside(self, url: str) -> None:
        """/metrics does not exist for visitors; what only begins like it goes through."""
        assert HTTP.get(f"{url}/metrics").status_code == 404
        assert HTTP.get(f"{url}/metrics-of-mine").status_code == 200

    def test_a_body_beyond_the_limit_is_refused(self, url: str) -> None:
        """1 MB is the limit here: a little less arrives whole, more gets 413."""
        assert HTTP.post(f"{url}/v1/runs", content=b"x" * 1_000_000).json()["size"] == 1_000_000
        assert HTTP.post(f"{url}/v1/runs", content=b"x" * 1_100_000).status_code == 413

    def test_shares_follow_the_percentage(self, url: str, plain: Proxy) -> None:
        """New sessions are divided as asked, within five standard deviations; a reload moves no live session."""
        assert abs(shares(url)["canary"] - 1000) < 5 * 22.4
        write_split(Split(10), Path(plain.folder))
        reload(plain, url, "canary")
        assert abs(shares(url)["canary"] - 200) < 5 * 13.4
        write_split(Split(0, deployed=True), Path(plain.folder))
        reload(plain, url, "canary")
        assert shares(url, 300)["canary"] == 0
        assert served_by(url, "sess_canary_0a1b2c") == "canary"

    def test_without_a_canary_its_sessions_go_to_stable(self, url: str, plain: Proxy) -> None:
        """After a roll-back nothing is sent to a container that is gone."""
        write_split(Split(), Path(plain.folder))
        reload(plain, url, "stable")
        assert served_by(url, "sess_canary_0a1b2c") == "stable"

    def test_the_log_holds_no_key_and_no_query(self, url: str, programs: Programs) -> None:
        """One JSON object a request, without what should not be kept."""
        HTTP.get(f"{url}/v1/runs?secret=query-secret", headers={"Authorization": "Bearer header-secret"})
        time.sleep(0.3)
        texts = [path.read_text() for path in programs.folder.glob("nginx-*.log")]
        assert not any("header-secret" in text or "query-secret" in text for text in texts)
        lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]
        assert any(line["path"] == "/v1/runs" and line["status"] == 200 and line["variant"] for line in lines)


def test_trusted_networks_may_choose_the_variant(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """From a trusted address X-Variant wins over the draw, for checks before traffic."""
    proxy = _elsewhere(plain, tmp_path, trusted=("127.0.0.0/8",))
    url = start(programs, proxy, Split(0, deployed=True))
    for variant in ("stable", "canary"):
        assert HTTP.get(f"{url}/v1/runs", headers={"X-Variant": variant}).json()["name"] == variant


def test_too_many_requests_get_429(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """Beyond rate and burst of one address nginx answers 429 itself."""
    url = start(programs, _elsewhere(plain, tmp_path, rate=1, burst=5))
    codes = Counter(HTTP.get(f"{url}/v1/runs").status_code for _ in range(20))
    assert codes[429] >= 10
    assert codes[200] >= 3


def test_a_dead_service_is_said_in_json(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """When nobody listens the visitor gets 503, Retry-After, and the API's form of an error."""
    url = start_without_health(programs, _elsewhere(plain, tmp_path, stable=f"127.0.0.1:{free_port()}"))
    reply = HTTP.get(f"{url}/v1/runs")
    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "5"
    assert reply.json()["error"]["type"] == "unavailable"


def test_a_new_address_is_noticed(programs: Programs, plain: Proxy, tmp_path: Path) -> None:
    """After a container is replaced its name points elsewhere; nginx follows without a reload."""
    first = Upstream("before", "127.0.0.2")
    second = Upstream("after", "127.0.0.3", first.port)
    try:
        with NameServer({"agent": ["127.0.0.2"]}) as names:
            proxy = _elsewhere(
                plain, tmp_path, stable=f"agent:{first.port}", resolver=names.address, resolve_every="1s"
            )
            url = start(programs, proxy)
            assert served_by(url, "a") == "before"
            names.names["agent"] = ["127.0.0.3"]
            first.close()
            deadline = time.monotonic() + 20
            while (reply := HTTP.get(f"{url}/v1/runs")).status_code != 200 or reply.json()["name"] != "after":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert names.asked >= 2
    finally:
        second.close()


@pytest.fixture(scope="module")
def proxy(programs: Programs, plain: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Proxy:
    """A proxy with a self-signed certificate."""
    folder = tmp_path_factory.mktemp("tls")
    run(
        find("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
    )  # fmt: skip
    ports = {"http_port": free_port(), "https_port": free_port()}
    proxy = _elsewhere(
        plain, folder, tls=True, hsts=True, certificate=f"{folder}/cert.pem", key=f"{folder}/key.pem",
        public_https_port=ports["https_port"], **ports,
    )  # fmt: skip
    start(programs, proxy, scheme="https")
    return proxy


class TestTls:
    """Certificate by file, HTTP to HTTPS."""

    def test_http_is_sent_to_https_with_method_and_query(self, proxy: Proxy) -> None:
        """308 keeps a POST a POST."""
        reply = HTTP.post(f"http://127.0.0.1:{proxy.http_port}/v1/runs?a=1")
        assert reply.status_code == 308
        assert reply.headers["Location"] == f"https://127.0.0.1:{proxy.https_port}/v1/runs?a=1"

    def test_the_certificate_is_the_given_one(self, proxy: Proxy) -> None:
        """A client that trusts that certificate gets an answer, and is told to stay with HTTPS."""
        trust = ssl.create_default_context(cafile=proxy.certificate)
        reply = httpx.get(f"https://127.0.0.1:{proxy.https_port}/v1/runs", verify=trust)
        assert reply.json()["headers"]["x-forwarded-proto"] == "https"
        assert "max-age" in reply.headers["Strict-Transport-Security"]

    def test_old_protocols_are_refused(self, proxy: Proxy) -> None:
        """TLS 1.1 gets no handshake."""
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1_2
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", proxy.https_port)) as raw, old.wrap_socket(raw) as good:
            assert good.version() == "TLSv1.2"
        done = subprocess.run(
            [find("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{proxy.https_port}", "-tls1_1",
             "-cipher", "ALL:@SECLEVEL=0"],
            input=b"", capture_output=True, timeout=30,
        )  # fmt: skip
        assert done.returncode != 0

    def test_challenges_of_an_authority_are_answered_without_tls(self, proxy: Proxy) -> None:
        """An ACME client puts its file below acme/ and it is served on port 80."""
        place = Path(proxy.folder) / "acme" / ".well-known" / "acme-challenge"
        place.mkdir(parents=True)
        (place / "token").write_text("proof")
        assert HTTP.get(f"http://127.0.0.1:{proxy.http_port}/.well-known/acme-challenge/token").text == "proof"


def start_without_health(programs: Programs, proxy: Proxy) -> str:
    """Start a proxy whose service is not there: ready is what nginx answers itself."""
    folder = Path(proxy.folder)
    write(proxy, folder)
    command = [find("nginx", "nginx"), "-c", f"{folder}/nginx.conf", "-e", "stderr", "-g", "daemon off; user root;"]
    url = f"http://127.0.0.1:{proxy.http_port}"
    programs.start(command, f"{url}/metrics")
    return url


def _elsewhere(proxy: Proxy, folder: Path, **changes: object) -> Proxy:
    """The same proxy in another folder and on another port, with changes."""
    return replace(proxy, **{"folder": str(folder), "temp": str(folder), "http_port": free_port(), **changes})
