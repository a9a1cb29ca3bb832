"""Certificate by file, HTTP to HTTPS, challenges of an authority."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from observability.nginx.render import Proxy
from tests.fakes.programs import Programs, find, free_port, run
from tests.observability.nginx.proxies import (
    HTTP,
    elsewhere,
    start,
)

pytestmark = pytest.mark.in_image


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
    proxy = elsewhere(
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
