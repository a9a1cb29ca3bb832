"""The proxy's certificate and configuration: made once, a person's own taken, what does not fit refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ci.stack import proxy
from ci.stack.errors import StackError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificate of the person who runs the tests."""
    for name in ("AGENT_LOOP_TLS_CERT", "AGENT_LOOP_TLS_KEY", "SERVER_NAME", "HTTPS_PORT"):
        monkeypatch.delenv(name, raising=False)


def subject(path: Path) -> str:
    """The certificate's names, as openssl prints them."""
    done = subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", "-subject", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_first_certificate_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the domain, is said once, and a second start keeps it."""
    monkeypatch.setenv("SERVER_NAME", "agent.example")
    assert "self-signed" in proxy.ensure(tmp_path, grafana=True)[0]
    made = (tmp_path / "tls" / "cert.pem").read_bytes()
    assert "DNS:agent.example" in subject(tmp_path / "tls" / "cert.pem")
    assert proxy.ensure(tmp_path, grafana=True) == []
    assert (tmp_path / "tls" / "cert.pem").read_bytes() == made


def test_ones_own_certificate_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that two variables name are what the proxy gets."""
    (own := tmp_path / "own").mkdir()
    proxy.ensure(own, grafana=False)
    monkeypatch.setenv("AGENT_LOOP_TLS_CERT", str(own / "tls" / "cert.pem"))
    monkeypatch.setenv("AGENT_LOOP_TLS_KEY", str(own / "tls" / "key.pem"))
    assert proxy.ensure(tmp_path / "stack", grafana=False) == []
    assert (tmp_path / "stack" / "tls" / "cert.pem").read_bytes() == (own / "tls" / "cert.pem").read_bytes()


@pytest.mark.parametrize("broken", ["one variable", "no file", "wrong key"])
def test_what_does_not_fit_is_one_clear_line(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a pair, an unreadable file, a key of another certificate: each is named with the fix."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        proxy.ensure(tmp_path / name, grafana=False)
    certificate, key = tmp_path / "a" / "tls" / "cert.pem", tmp_path / "b" / "tls" / "key.pem"
    wanted = {
        "one variable": (str(certificate), "", "Set both"),
        "no file": (str(tmp_path / "none.pem"), str(key), "none.pem"),
        "wrong key": (str(certificate), str(key), "matching PEM pair"),
    }
    cert_path, key_path, message = wanted[broken]
    monkeypatch.setenv("AGENT_LOOP_TLS_CERT", cert_path)
    monkeypatch.setenv("AGENT_LOOP_TLS_KEY", key_path)
    with pytest.raises(StackError, match=message):
        proxy.ensure(tmp_path / "stack", grafana=False)


def test_a_start_keeps_the_split_of_a_release(tmp_path: Path) -> None:
    """`up prod` in the middle of a canary does not send its sessions elsewhere."""
    proxy.ensure(tmp_path, grafana=True)
    proxy.split(tmp_path, 25, "v2", deployed=True)
    before = (tmp_path / "nginx" / "split.conf").read_text()
    assert "25%" in before
    proxy.ensure(tmp_path, grafana=True)
    assert (tmp_path / "nginx" / "split.conf").read_text() == before
