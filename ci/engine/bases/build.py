"""Make a base: mmdebstrap installs the packages, `oci.py` writes the layout, a rename puts it in place."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from ci.engine.bases import apt, oci, store
from ci.engine.bases.errors import BuildFailed, MissingTool, UnknownBase
from ci.engine.bases.recipes import EPOCH, RECIPES, SUITE, Recipe

Say = Callable[[str], None]

_UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_KEPT = ("/usr/share/doc/*/copyright",)
_QEMU = {"arm64": "qemu-aarch64", "amd64": "qemu-x86_64"}


def command(recipe: Recipe, arch: str, sources: list[str], target: Path) -> list[str]:
    """The mmdebstrap command line that writes the root file system of `recipe` to the tar `target`."""
    rules = [f"--dpkgopt=path-exclude={path}" for path in _UNWANTED]
    rules += [f"--dpkgopt=path-include={path}" for path in _KEPT]
    hooks = [
        # What package scripts log or cache differs from run to run and serves nobody in an image.
        '--customize-hook=rm -rf "$1"/var/log/* "$1"/var/cache/ldconfig/* "$1"/var/cache/debconf/*-old',
        # Of these two mmdebstrap takes the machine's own; a container gets others from its engine.
        '--customize-hook=echo localhost >"$1"/etc/hostname; : >"$1"/etc/resolv.conf',
        *(
            f'--customize-hook=install -d "$1{folder.path}" && chown -R {folder.owner} "$1{folder.path}"'
            for folder in recipe.folders
        ),
    ]
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--architectures={arch}",
        f"--include={','.join(recipe.packages)}",
        *rules,
        *hooks,
        # A container gets its own /dev, and a rootless container engine cannot unpack device nodes.
        "--skip=output/dev",
        SUITE,
        str(target),
        *sources,
    ]


def check_tools(arch: str) -> None:
    """Raise MissingTool where this machine cannot build a base for `arch`."""
    if shutil.which("mmdebstrap") is None:
        raise MissingTool("mmdebstrap is not installed. Run 'apt-get install mmdebstrap'.")
    handler = Path("/proc/sys/fs/binfmt_misc") / _QEMU.get(arch, "qemu-" + arch)
    if arch != store.host_arch() and not handler.exists():
        raise MissingTool(
            f"This {store.host_arch()} machine cannot run {arch} programs (no {handler}). "
            "Run 'apt-get install qemu-user-static binfmt-support', or build on such a machine."
        )


@contextmanager
def _exclusive(say: Say) -> Generator[None]:
    """Hold the one lock of the bases folder; the kernel drops it when the process ends, however it ends."""
    store.root().mkdir(parents=True, exist_ok=True)
    with (store.root() / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another 'agent-loop bases build' is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(name: str, arch: str, *, fresh: bool = False, say: Say = print) -> store.Record:
    """Make base `name` for `arch` unless it is there already from the same recipe; return its record.

    With `fresh` it is made anyway: package updates come in this way. An interrupted or failed build leaves
    what was there before.

    Raises:
        UnknownBase, MissingTool, NoPackageSource, BuildFailed: one line each, with what to do.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise UnknownBase(f"No base is called '{name}'. There are: {', '.join(RECIPES)}.")
    with _exclusive(say):
        store.write_index()
        there = store.read_record(name, arch)
        if there and there.recipe == recipe.digest(arch) and not fresh:
            say(f"{name} ({arch}): there already, {there.digest[:19]}, {there.size / 1e6:.0f} MB")
            return there
        check_tools(arch)
        sources = apt.sources(SUITE)
        for stale in store.root().glob(".building-*"):  # of a run that was killed: we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=".building-", dir=store.root()))
        try:
            return _build(recipe, arch, sources, work, say)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _build(recipe: Recipe, arch: str, sources: list[str], work: Path, say: Say) -> store.Record:
    rootfs = work / "rootfs.tar"
    _run(command(recipe, arch, sources, rootfs), f"{recipe.name} ({arch})", work, say)
    size, packages = inspect(rootfs)
    made = work / "layout"
    digest = oci.write_layout(recipe, arch, rootfs, made)
    record = store.Record(
        recipe.name, arch, recipe.digest(arch), digest, recipe.binary, size, dict(sorted(packages.items()))
    )
    store.write_record(made, record)
    place = store.layout(recipe.name, arch)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():  # a folder cannot be replaced in one step: move the old one aside, into what is deleted
        place.rename(work / "old")
    made.rename(place)
    say(f"{recipe.name} ({arch}): made, {digest[:19]}, {size / 1e6:.0f} MB, {len(packages)} packages")
    return record


def _run(argv: list[str], title: str, work: Path, say: Say) -> None:
    """Run mmdebstrap, telling its steps; on interruption end it and everything it started."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(work), "LC_ALL": "C.UTF-8"}
    tail: deque[str] = deque(maxlen=40)
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                tail.append(line.rstrip())
                if line.startswith("I: ") and line.rstrip().endswith("..."):
                    say(f"{title}: {line[3:].split(' /')[0].rstrip().rstrip('.')}")
        except BaseException:
            # mmdebstrap removes its own chroot on an interrupt; what ignores that is killed.
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        output = "\n".join(tail)
        cause = next((line[3:] for line in tail if line.startswith("E: ")), "no reason given")
        full = "No space left on device" in output
        hint = "Free disk space and run it again." if full else "Add --verbose for its output."
        raise BuildFailed(f"mmdebstrap failed on {title}: {cause} {hint}", output)


def inspect(rootfs: Path) -> tuple[int, dict[str, str]]:
    """Unpacked size in bytes, and package -> version from dpkg's status file, of a root file system's tar."""
    size = 0
    packages: dict[str, str] = {}
    with tarfile.open(rootfs) as archive:
        for member in archive:
            size += member.size if member.isfile() else 0
            if member.name.lstrip("./") == "var/lib/dpkg/status":
                stream = archive.extractfile(member)
                packages = parse_status(stream.read().decode()) if stream else {}
    return size, packages


def parse_status(text: str) -> dict[str, str]:
    """Package -> version from the text of dpkg's status file (deb822 stanzas)."""
    found: dict[str, str] = {}
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if "Package" in fields and "Version" in fields:
            found[fields["Package"]] = fields["Version"]
    return found
