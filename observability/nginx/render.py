"""The proxy's configuration, from a few facts: `nginx.conf` once, `split.conf` whenever a canary moves.

    proxy = Proxy(server_name="agent.example")
    write(proxy, folder)                          both files, each by atomic rename; a split that stands there stays
    write_split(Split(percent=10), folder)        then `nginx -s reload`

A session id that the service issued is `sess_<variant>_<random>`; it wins over the draw, so a change of percentage
never moves a live session. Requests without one are drawn by `X-Session-Id` if the client made its own, each new
session by itself, all others by key and address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


class ProxyError(ValueError):
    """A value that cannot stand in the configuration; the message says which and what to use."""


@dataclass(frozen=True, slots=True)
class Split:
    """How new sessions are divided. `deployed` keeps a canary's live sessions with it, even at 0 %."""

    percent: float = 0
    deployed: bool = False
    variant: str = "canary"
    """The name that the canary's service writes into its session ids (its setting `variant`)."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where nginx listens, what is behind it, and what it lets through. Addresses are `host:port`."""

    server_name: str = "_"
    tls: bool = True
    http_port: int = 8080
    https_port: int = 8443
    public_https_port: int = 443
    """The port in the redirect to HTTPS, as visitors see it."""
    certificate: str = "/etc/agent-loop-tls/cert.pem"
    key: str = "/etc/agent-loop-tls/key.pem"
    hsts: bool = False
    """Tell browsers to come by HTTPS only; not with a self-signed certificate, which they could then not accept."""
    stable: str = "agent:8000"
    canary: str = "agent-canary:8000"
    grafana: str = "grafana:3000"
    """Empty: no Grafana behind /grafana/."""
    resolver: str = "127.0.0.11"
    resolve_every: str = "5s"
    folder: str = "/etc/agent-loop"
    """Where the running nginx finds split.conf and acme/ (challenges of a certificate authority)."""
    temp: str = "/tmp"  # noqa: S108
    body_limit: str = "10m"
    read_timeout: str = "3600s"
    """Longer than the longest silence of a run."""
    rate: int = 50
    burst: int = 200
    connections: int = 200
    """Of one address: requests a second, how many may come at once, open connections."""
    trusted: tuple[str, ...] = ()
    """Networks (CIDR) whose X-Variant header is heard."""


def render(proxy: Proxy) -> str:
    """The text of nginx.conf. Raises ProxyError for a value that would break out of its place."""
    values = {
        name: _plain(name, str(getattr(proxy, name)))
        for name in ("temp", "resolver", "resolve_every", "folder", "canary", "stable", "body_limit", "read_timeout")
    }
    values |= {name: str(getattr(proxy, name)) for name in ("rate", "burst", "connections")}
    values["trusted"] = "\n        ".join(f"{_plain('trusted', network)} 1;" for network in proxy.trusted)
    values["forced_canary"] = '"1 canary" canary;'
    locations = _fill((HERE / "locations.template").read_text(), values) + _grafana(proxy)
    values["servers"] = _servers(proxy, locations)
    text = _fill((HERE / "nginx.conf.template").read_text(), values)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def render_split(split: Split) -> str:
    """The text of split.conf: who gets the canary. 0 % leaves its line out, as nginx would refuse `0%`."""
    if not 0 <= split.percent <= 100:
        raise ProxyError(f"Percentage out of range: {split.percent:g}. Use 0 to 100.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", split.variant):
        raise ProxyError(f"Not a variant's name: '{split.variant}'. Use small letters, digits and '-'.")
    percent = f"{split.percent:.2f}".rstrip("0").rstrip(".")
    deployed = split.deployed or percent != "0"
    drawn = {"0": "    * stable;", "100": "    * canary;"}.get(percent, f"    {percent}% canary;\n    * stable;")
    canary = f'    "~^sess_{split.variant}_[0-9a-f]+$" canary;\n' if deployed else ""
    return (
        f"# {percent} % of new sessions go to the canary{'' if deployed else ' (none is deployed)'}.\n"
        f'split_clients "$split_key" $drawn {{\n{drawn}\n}}\n'
        f'map $session_id $assigned {{\n{canary}    "~^sess_[a-z0-9-]+_[0-9a-f]+$" stable;\n    default $drawn;\n}}\n'
    )


def write(proxy: Proxy, folder: Path, split: Split | None = None) -> None:
    """Write nginx.conf and split.conf to `folder` on this machine, each whole or not at all.

    Without `split` the one that stands stays, so that a canary's sessions do; where none does, there is no canary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "acme").mkdir(exist_ok=True)
    _replace(folder / "nginx.conf", render(proxy))
    if split or not (folder / "split.conf").is_file():
        write_split(split or Split(), folder)


def write_split(split: Split, folder: Path) -> None:
    """Write split.conf alone; nginx must be reloaded to see it."""
    _replace(folder / "split.conf", render_split(split))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.chmod(0o644)
    part.replace(path)


def _fill(template: str, values: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], template)


def _plain(name: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:/\[\]-]+", value):
        raise ProxyError(f"Not usable as '{name}' of the proxy: '{value}'. Use an address, a path or a number.")
    return value


def _servers(proxy: Proxy, locations: str) -> str:
    name = " ".join(_plain("server_name", word) for word in proxy.server_name.split())
    if not proxy.tls:
        return f"    server {{\n        listen {proxy.http_port};\n        server_name {name};\n\n{locations}    }}"
    port = "" if proxy.public_https_port == 443 else f":{proxy.public_https_port}"
    hsts = '        add_header Strict-Transport-Security "max-age=31536000" always;\n' if proxy.hsts else ""
    return f"""    server {{
        listen {proxy.http_port};
        server_name {name};
        location ^~ /.well-known/acme-challenge/ {{ root {_plain("folder", proxy.folder)}/acme; }}
        # 308 keeps method and body.
        location / {{ return 308 https://$host{port}$request_uri; }}
    }}

    server {{
        listen {proxy.https_port} ssl http2;
        server_name {name};
        ssl_certificate {_plain("certificate", proxy.certificate)};
        ssl_certificate_key {_plain("key", proxy.key)};
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:5m;
        ssl_session_timeout 1d;
        ssl_session_tickets off;
{hsts}
{locations}    }}"""


def _grafana(proxy: Proxy) -> str:
    if not proxy.grafana:
        return ""
    return f"""
        # Behind Grafana's own login.
        location /grafana/ {{
            set $grafana {_plain("grafana", proxy.grafana)};
            proxy_pass http://$grafana;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
"""
