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


def pair(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder.mkdir()
    proxy.ensure(folder, grafana=False)
    return folder / "tls" / "cert.pem", folder / "tls" / "key.pem"


def locked(key: Path, target: Path) -> Path:
    """The same key behind a passphrase."""
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(target)]
    subprocess.run(command, check=True)
    return target


BROKEN = {
    "one variable": "Set both",
    "no file": "none.pem: No such file or directory, in AGENT_LOOP_TLS_CERT",
    "a folder": "Is a directory, in AGENT_LOOP_TLS_KEY",
    "binary": "not text, in AGENT_LOOP_TLS_CERT",
    "swapped": "No certificate in .*key.pem",
    "no key in it": "No private key in .*cert.pem",
    "passphrase": "openssl pkey",
    "wrong key": "matching PEM pair",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_does_not_fit_is_one_clear_line(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a pair, an unreadable file, another certificate's key: each is named with the fix, nothing is replaced."""
    certificate, key = pair(tmp_path / "a")
    _, other = pair(tmp_path / "b")
    served, _ = pair(tmp_path / "stack")
    before = served.read_bytes()
    (tmp_path / "der").write_bytes(b"\x30\x82\xff\xfe")
    wanted = {
        "one variable": (certificate, ""),
        "no file": (tmp_path / "none.pem", key),
        "a folder": (certificate, tmp_path),
        "binary": (tmp_path / "der", key),
        "swapped": (key, certificate),
        "no key in it": (certificate, certificate),
        "passphrase": (certificate, locked(key, tmp_path / "locked")),
        "wrong key": (certificate, other),
    }
    for variable, value in zip(("AGENT_LOOP_TLS_CERT", "AGENT_LOOP_TLS_KEY"), wanted[broken], strict=True):
        monkeypatch.setenv(variable, str(value))
    with pytest.raises(StackError, match=BROKEN[broken]) as caught:
        proxy.ensure(tmp_path / "stack", grafana=False)
    assert "\n" not in str(caught.value)
    assert served.read_bytes() == before


def test_a_pair_that_broke_is_made_again(tmp_path: Path) -> None:
    """Killed between key and certificate, or a file cut short: the next start makes a self-signed pair that works."""
    certificate, key = pair(tmp_path / "stack")
    key.unlink()
    key.write_text("-----BEGIN PRIVATE KEY-----")
    assert "self-signed" in proxy.ensure(tmp_path / "stack", grafana=False)[0]
    assert proxy.ensure(tmp_path / "stack", grafana=False) == []
    assert "DNS:localhost" in subject(certificate)


def test_a_start_keeps_the_split_of_a_release(tmp_path: Path) -> None:
    """`up prod` in the middle of a canary does not send its sessions elsewhere."""
    proxy.ensure(tmp_path, grafana=True)
    proxy.split(tmp_path, 25, "v2", deployed=True)
    before = (tmp_path / "nginx" / "split.conf").read_text()
    assert "25%" in before
    proxy.ensure(tmp_path, grafana=True)
    assert (tmp_path / "nginx" / "split.conf").read_text() == before
