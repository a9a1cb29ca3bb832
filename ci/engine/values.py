"""What objects amount to: frozen records that the fields' functions take and give."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .errors import FieldError
from .files.fs import SCRATCH, Fs, digest

if TYPE_CHECKING:
    from .secrets import Secret

Pairs = tuple[tuple[str, str], ...]
VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z0-9_]+)|(.))?", re.DOTALL)


@dataclass(frozen=True)
class CacheVolume:
    """A cache volume: told apart by its key and what it was made with."""

    key: str
    source: Directory | None = None
    sharing: str = "SHARED"
    owner: str = ""


@dataclass(frozen=True)
class Directory:
    """A folder of a file system; `path` is relative to its root, without a leading slash."""

    fs: Fs
    path: str = ""
    shown: str = ""
    """The path as errors show it."""
    refused: FieldError | None = None
    """Why it cannot be read, known before any build (it lies in a cache, say)."""
    name: str = "/"
    above: tuple[tuple[str, str], ...] = ()
    """Folders that were gone through, each with its path as shown: the first that is missing is the error."""


@dataclass(frozen=True)
class File:
    """A file of a file system, under a name that may be another."""

    fs: Fs
    path: str
    name: str
    shown: str = ""
    refused: FieldError | None = None


@dataclass(frozen=True)
class Port:
    """An exposed port."""

    port: int
    protocol: str = "TCP"
    description: str | None = None
    skip_healthcheck: bool = False


@dataclass(frozen=True)
class Healthcheck:
    """A health check; durations in Go's words."""

    args: tuple[str, ...]
    shell: bool = False
    interval: str = "0s"
    timeout: str = "0s"
    start_period: str = "0s"
    start_interval: str = "0s"
    retries: int = 0


# Mounts


@dataclass(frozen=True)
class Mount:
    """Something mounted at an absolute path of a container."""

    path: str


@dataclass(frozen=True)
class TreeMount(Mount):
    """A folder or, with `lone`, a file; what steps write there is kept for the next ones."""

    fs: Fs
    source_path: str = ""
    lone: bool = False
    read_only: bool = False
    owner: str = ""
    shown: str = ""


@dataclass(frozen=True)
class CacheMount(Mount):
    """A cache volume."""

    volume: CacheVolume
    source: Directory | None = None
    sharing: str = "SHARED"
    owner: str = ""


@dataclass(frozen=True)
class TempMount(Mount):
    """An empty tmpfs, new in every step."""

    size: int | None = None


@dataclass(frozen=True)
class SecretMount(Mount):
    """A secret as a file."""

    secret: Secret
    owner: str = ""
    mode: int = 0o400


# Steps


@dataclass(frozen=True, eq=False)
class Step:
    """A command with all that it runs in: what `withExec` adds to a container."""

    base: Fs
    args: tuple[str, ...]
    env: Pairs = ()
    dropped: tuple[str, ...] = ()
    """Variables of the base image that are taken away."""
    volatile: Pairs = ()
    secrets: tuple[tuple[str, Secret], ...] = ()
    user: str = ""
    workdir: str = ""
    stdin: str | None = None
    redirect_stdin: str = ""
    redirect_stdout: str = ""
    redirect_stderr: str = ""
    expect: str = "SUCCESS"
    mounts: tuple[Mount, ...] = ()
    platform: str = ""
    no_init: bool = False
    gpus: tuple[str, ...] = ()
    around: str = ""
    """Hash of the rest of the container's configuration: on a Dagger engine a label before a step makes it
    another step."""

    @cached_property
    def key(self) -> str:
        """Names what the step is, and so its result: secrets by name, volatile variables not at all."""
        described: list[Any] = []
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "volatile":
                value = [name for name, _ in value]
            elif f.name == "secrets":
                value = [[name, secret.name] for name, secret in value]
            elif f.name == "mounts":
                value = [mount_key(m) for m in value]
            described.append(value)
        return digest(["Step", *described])

    @property
    def ok(self) -> frozenset[int]:
        """Exit codes that are no error."""
        tolerated = frozenset(range(128)) | frozenset(range(192, 256))
        return {
            "SUCCESS": frozenset({0}),
            "FAILURE": tolerated - {0},
            "ANY": tolerated,
        }[self.expect]

    def all_secrets(self) -> list[Secret]:
        """Every secret that it is given, as a variable or as a file."""
        return [s for _, s in self.secrets] + [m.secret for m in self.mounts if isinstance(m, SecretMount)]

    def written_mounts(self) -> list[int]:
        """Indexes of mounts whose content may change."""
        return [i for i, m in enumerate(self.mounts) if isinstance(m, TreeMount) and not m.read_only]


def mount_key(mount: Mount) -> Any:
    """What of a mount takes part in a step's key."""
    match mount:
        case TreeMount():
            part = mount.fs.part(mount.source_path, mount.lone)
            return ["tree", mount.path, part, mount.lone, mount.read_only, mount.owner]
        case CacheMount():
            source = mount.source or mount.volume.source
            volume = [mount.volume.key, mount.volume.sharing, mount.volume.owner]
            return ["cache", mount.path, volume, source and source.fs.part(source.path), mount.sharing, mount.owner]
        case TempMount():
            return ["temp", mount.path, mount.size]
        case SecretMount():
            return ["secret", mount.path, mount.secret.name, mount.owner, mount.mode]
        case _:
            raise TypeError(type(mount).__name__)


@dataclass(frozen=True, eq=False)
class Ran(Fs):
    """The root file system after a step."""

    step: Step

    @cached_property
    def key(self) -> str:
        return digest(["Ran", self.step.key])

    @cached_property
    def sources(self) -> tuple[Fs, ...]:
        return (self.step.base, *[m.fs for m in self.step.mounts if isinstance(m, TreeMount)])

    @property
    def static(self) -> bool:  # type: ignore[override]
        return False


@dataclass(frozen=True, eq=False)
class After(Fs):
    """What a mount holds after a step."""

    step: Step
    index: int

    @cached_property
    def key(self) -> str:
        return digest(["After", self.step.key, self.index])

    @cached_property
    def sources(self) -> tuple[Fs, ...]:
        return (Ran(self.step),)

    @property
    def static(self) -> bool:  # type: ignore[override]
        return False


# Containers


@dataclass(frozen=True)
class Container:
    """A container: files, configuration, mounts, and the step that ran last."""

    platform: str
    fs: Fs = SCRATCH
    base_env: Pairs = ()
    """Variables that the base image brings (so a Dockerfile need not say them again)."""
    env: Pairs = ()
    labels: Pairs = ()
    annotations: Pairs = ()
    user: str = ""
    workdir: str = ""
    entrypoint: tuple[str, ...] = ()
    default_args: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    healthcheck: Healthcheck | None = None
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[tuple[str, Secret], ...] = ()
    volatile: Pairs = ()
    """Registry, user, password."""
    step: Step | None = None
    image_ref: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Parts of an image's configuration that no field changes (StopSignal, Volumes, Shell)."""

    def with_(self, **changes: Any) -> Container:
        """A copy with some parts changed; what `imageRef` tells ends here."""
        return replace(self, **({"image_ref": None} | changes))

    def variable(self, name: str) -> str | None:
        """A plain variable's value."""
        return dict(self.env).get(name)

    def expand(self, text: str, *, refuse_secrets: bool = True) -> str:
        """`$A` and `${A}` replaced; unset is empty, there are no defaults and no escape.

        Raises FieldError for a secret variable; with `refuse_secrets=False` it counts as unset.
        """
        known = dict(self.env)
        secret = {name for name, _ in self.secrets} if refuse_secrets else frozenset[str]()

        def one(match: re.Match[str]) -> str:
            braced, bare, other = match.groups()
            name = bare if braced is None else braced
            if name is None:
                return "" if other is not None else "$"
            if name in secret:
                raise FieldError(f'expand cannot be used with secret env variable "{name}"')
            return known.get(name, "")

        return VARIABLE.sub(one, text)

    def absolute(self, path: str) -> str:
        """A path as seen from the working folder, cleaned."""
        return posixpath.normpath(posixpath.join("/", self.workdir, path)).replace("//", "/")

    def mount_at(self, path: str) -> Mount | None:
        """The mount that a path lies in: the last one mounted wins."""
        for mount in reversed(self.mounts):
            if path == mount.path or path.startswith(mount.path.rstrip("/") + "/"):
                return mount
        return None

    @cached_property
    def around(self) -> str:
        """Hash of the configuration that no step sees but that tells steps apart."""
        return digest(
            [self.labels, self.annotations, self.entrypoint, self.default_args, self.healthcheck and
             [getattr(self.healthcheck, f.name) for f in fields(self.healthcheck)],
             [[getattr(p, f.name) for f in fields(p)] for p in self.ports]]
        )  # fmt: skip


def put(pairs: Pairs, name: str, value: str) -> Pairs:
    """Set a name: an overwritten one keeps its place, a new one goes last."""
    if any(n == name for n, _ in pairs):
        return tuple((n, value if n == name else v) for n, v in pairs)
    return (*pairs, (name, value))


def drop(pairs: Pairs, name: str) -> Pairs:
    """Take a name away."""
    return tuple((n, v) for n, v in pairs if n != name)
