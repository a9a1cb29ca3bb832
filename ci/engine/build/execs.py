"""How a step runs in a build, and how its results come back (decision 8; docs/adr has why).

The step is one exec-form RUN of a static busybox with `tools/exec.sh`, both bind-mounted. What to run is in a
small file of the step's own, `step.sh`, which is mounted too: it is part of the step's identity, so equal
steps are equal to BuildKit. Results go into a cache mount named after the step's hash.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path

from ci.engine.errors import ENGINE_ROOT, SetupError
from ci.engine.values import SecretMount, Step

from .steps import Result

OUT = "/.al/out"
AGAIN = "AGENT_LOOP_AGAIN"
"""A build argument: another value fills the cache mount of the certificates anew."""
LOST = "al-certificates-lost"
"""What a step says whose certificates were pruned from their cache mount."""
BUSYBOX = "AGENT_LOOP_BUSYBOX"
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def cache_id(step: Step, again: int = 0) -> str:
    """The cache mount that holds a step's results. `again` makes another one, and so another run."""
    return f"agent-loop-out-{step.key[:40]}" + (f"-{again}" if again else "")


def in_dockerfile(name: str, value: str) -> bool:
    """Whether ENV can say a variable: one line, a plain name."""
    return NAME.fullmatch(name) is not None and not re.search(r"[\n\r]", value)


def step_file(step: Step) -> str:
    """The text of `step.sh`: arguments and settings for `tools/exec.sh`. Holds no secret."""
    lines = [f"expect={step.expect}"]
    lines += [f"unset {name}" for name in step.dropped if NAME.fullmatch(name)]
    lines += [f"export {n}={shlex.quote(v)}" for n, v in step.env if not in_dockerfile(n, v) and NAME.fullmatch(n)]
    odd = [shlex.quote(f"{n}={v}") for n, v in step.env if n and not NAME.fullmatch(n)]
    if odd:
        lines.append(f"odd={shlex.quote(' '.join(odd))}")
    if step.stdin is not None:
        lines.append("in=/.al/step/stdin")
    elif step.redirect_stdin:
        lines.append(f"in={shlex.quote(step.redirect_stdin)}")
    if step.redirect_stdout:
        lines.append(f"to_out={shlex.quote(step.redirect_stdout)}")
    if step.redirect_stderr:
        lines.append(f"to_err={shlex.quote(step.redirect_stderr)}")
    if step.no_init and step.expect == "SUCCESS":
        lines.append("no_init=1")
    watched = [f"{i}:{step.mounts[i].path}" for i in step.written_mounts()]
    if watched:
        lines.append(f"mounts={_listed(watched)}")
    files: list[str] = []
    for name, secret in step.secrets:
        at = f"/.al/secret/{secret.handle}"
        files.append(at)
        if NAME.fullmatch(name):
            lines.append(f"{name}=$($bb cat {at}; echo x); {name}=${{{name}%x}}; export {name}")
    files += [m.path for m in step.mounts if isinstance(m, SecretMount)]
    if files:
        lines.append(f"secrets={_listed(files)}")
    if step.gpus:
        lines.append(f"# gpus {' '.join(step.gpus)}")
    if step.around:
        lines.append(f"# around {step.around}")
    lines.append("set -- " + " ".join(shlex.quote(a) for a in step.args))
    return "\n".join(lines) + "\n"


def _listed(items: Sequence[str]) -> str:
    """A list for the shell, one a line: a path may have spaces."""
    return shlex.quote("\n".join(items))


def volatile_file(step: Step) -> str:
    """Variables that take no part in the step's identity, as a script; mounted like a secret."""
    return "".join(f"export {n}={shlex.quote(v)}\n" for n, v in step.volatile if NAME.fullmatch(n))


@dataclass(frozen=True)
class Tools:
    """Where the mounted tools are on this machine."""

    busybox: Path
    certificates: Path | None

    @cached_property
    def bundle(self) -> str:
        """A word for the certificates as this machine has them, in hexadecimal digits."""
        content = self.certificates.read_bytes() if self.certificates is not None else b""
        return hashlib.sha256(platform.node().encode() + b"\n" + content).hexdigest()[:16]


def find_tools(env: Mapping[str, str]) -> Tools:
    """The static busybox and the host's certificates. Raises SetupError."""
    given = env.get(BUSYBOX)
    path = Path(given) if given else Path("/bin/busybox")
    if not path.is_file():
        raise SetupError(
            f"No static busybox at {path}. Install it: apt-get install busybox-static; or name one in {BUSYBOX}."
        )
    if not _is_static(str(path)):
        raise SetupError(
            f"{path} is not statically linked, so it cannot run in every image. "
            f"Install busybox-static, or name a static one in {BUSYBOX}."
        )
    bundle = env.get("AGENT_LOOP_CA_BUNDLE") or env.get("SSL_CERT_FILE")
    choices = [bundle] if bundle else list(BUNDLES)
    found = next((Path(c) for c in choices if c and Path(c).is_file()), None)
    return Tools(path, found)


@lru_cache(maxsize=4)
def _is_static(path: str) -> bool:
    """An ELF file without a program interpreter."""
    with Path(path).open("rb") as file:
        head = file.read(4096)
    return head[:4] == b"\x7fELF" and b"/ld-linux" not in head and b"/ld-musl" not in head


def write_tools(folder: Path, tools: Tools) -> None:
    """Put busybox and our scripts into a build context's folder `tools`."""
    target = folder / "tools"
    target.mkdir(parents=True, exist_ok=True)
    try:
        os.link(tools.busybox, target / "busybox")
    except OSError:
        shutil.copyfile(tools.busybox, target / "busybox")
        (target / "busybox").chmod(0o755)
    for name, text in scripts().items():
        (target / name).write_text(text)


@lru_cache(maxsize=1)
def scripts() -> dict[str, str]:
    """Our scripts by file name."""
    found: dict[str, str] = {}
    for item in resources.files("ci.engine.build").joinpath("tools").iterdir():
        if item.name.endswith((".sh", ".conf")):
            found[item.name] = item.read_text().replace("@ROOT@", ENGINE_ROOT).replace("@LOST@", LOST)
    return found


def read_results(files: Mapping[str, bytes]) -> Result | None:
    """A step's results from the files that it left; None where they are not all there."""
    if not {"code", "stdout", "stderr", "combined"} <= set(files):
        return None
    try:
        code = int(files["code"])
    except ValueError:
        return None

    def text(name: str) -> str:
        return files.get(name, b"").decode(errors="replace")

    return Result(code, text("stdout"), text("stderr"), text("combined"), text("refused"))
