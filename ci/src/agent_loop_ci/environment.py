"""Python environments: uv as a hash-locked wheel, `/app/.venv` from a hash-locked set, sources with bytecode.

The same inputs give the same bytes, from empty caches too (`docs/images.md` says what each setting is for).
"""

from __future__ import annotations

import dagger
from dagger import dag

from agent_loop_ci import caches
from agent_loop_ci.bases import Base

VENV = "/app/.venv"
PYTHON = f"{VENV}/bin/python"

EPOCH = 315532800
"""Seconds: 1980-01-01, the earliest date a zip archive can hold. The date of every file made by a build."""

REPRODUCIBLE = {
    "UV_COMPILE_BYTECODE": "1",
    # Bytecode that names its source's time or hash by default would differ, or be checked at every start.
    "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
    # INSTALLER, REQUESTED and direct_url.json hold where a wheel came from.
    "UV_NO_INSTALLER_METADATA": "1",
}
UV = {
    "UV_LINK_MODE": "copy",  # the cache is a mount of its own: hard links cannot cross it
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_SYSTEM_CERTS": "1",  # trust what the system trusts, so that a company's certificate works
    "UV_NO_PROGRESS": "1",
    **REPRODUCIBLE,
}

GLIBC = "manylinux_2_40"
"""Debian trixie has glibc 2.41: the newest wheels' tag that runs there."""
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}


def python(base: Base, platform: dagger.Platform | None = None) -> dagger.Container:
    """The base image, on `platform` or on the engine's own."""
    container = dag.container(platform=platform) if platform else dag.container()
    return container.from_(base.address)


def packages(container: dagger.Container, names: tuple[str, ...], *, then: str = "true") -> dagger.Container:
    """Install Debian packages without the recommended ones, then run the shell line `then`, all in one layer.

    Logs and the linker's cache are removed: they hold times.
    """
    script = "\n".join(
        [
            "rm -f /etc/apt/apt.conf.d/docker-clean",  # would empty the cache volume
            "apt-get update -q",
            f"apt-get install -yq --no-install-recommends {' '.join(names)}",
            then,
            "rm -rf /var/log/apt /var/log/*.log /var/cache/ldconfig/aux-cache /var/lib/dpkg/*-old",
        ]
    )
    return caches.without_apt(
        caches.apt(container).with_exec(
            ["env", "DEBIAN_FRONTEND=noninteractive", f"SOURCE_DATE_EPOCH={EPOCH}", "sh", "-ec", script]
        )
    )


def libraries(base: Base, names: tuple[str, ...], platform: dagger.Platform | None = None) -> dagger.Directory:
    """What Debian packages of shared libraries hold, for `platform`, to be copied onto that base's root.

    Unpacked and not installed: nothing of another platform has to run. Each package leaves its record in
    /var/lib/dpkg/status.d, where SBOM tools look in images without a package manager's own database.
    """
    architecture = str(platform).partition("/")[2] if platform else "$(dpkg --print-architecture)"
    script = "\n".join(
        [
            "rm -f /etc/apt/apt.conf.d/docker-clean",
            f'architecture="{architecture}"',
            'dpkg --add-architecture "$architecture"',
            "apt-get update -q",
            "mkdir -p /tmp/debs /out/var/lib/dpkg/status.d",
            "cd /tmp/debs",
            f"for name in {' '.join(names)}; do",
            '  apt-get download -q -o APT::Sandbox::User=root "$name:$architecture"',
            '  dpkg-deb -x "$name"_*.deb /out',
            '  dpkg-deb -f "$name"_*.deb > "/out/var/lib/dpkg/status.d/$name"',
            "done",
            "rm -rf /out/usr/share",
            f"find /out -exec touch -h -d @{EPOCH} {{}} +",
        ]
    )
    return caches.apt(python(base)).with_exec(["sh", "-ec", script]).directory("/out")


def uv_binary(base: Base, requirements: dagger.File) -> dagger.File:
    """uv's program, from the wheel that `requirements` (requirements/uv.txt) names by hash.

    The official image has pip; a base made of Debian packages gets it here, where no image is made from.
    """
    script = "\n".join(
        [
            "if ! command -v pip; then",
            "  rm -f /etc/apt/apt.conf.d/docker-clean",
            "  apt-get update -q",
            "  apt-get install -yq --no-install-recommends python3-pip",
            "fi",
            "pip install --quiet --no-deps --no-compile --require-hashes --only-binary :all: "
            "--no-cache-dir --disable-pip-version-check --root-user-action ignore "
            "--target /opt/uv -r /mnt/uv.txt",
        ]
    )
    return (
        caches.apt(python(base))
        .with_mounted_file("/mnt/uv.txt", requirements)
        .with_exec(["env", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec", script])
        .file("/opt/uv/bin/uv")
    )


def installed(
    base: Base,
    uv: dagger.File,
    requirements: dagger.File,
    *,
    platform: dagger.Platform | None = None,
    options: tuple[str, ...] = (),
) -> dagger.Container:
    """A container on the engine's own platform whose `/app/.venv` holds the set `requirements`.

    With `platform` the wheels are those of that platform: nothing of it is run here, so no emulation is needed.
    Only wheels are taken: nothing is compiled and no package's code runs. `options` are further words for
    `uv pip install`.
    """
    words = ["uv", "pip", "install", "--python", PYTHON, "--require-hashes", "--only-binary", ":all:"]
    if platform:
        words += ["--python-platform", f"{MACHINES[str(platform)]}-{GLIBC}"]
    words += [*options, "-r", "/mnt/requirements.txt"]
    script = "\n".join(
        [
            f"uv venv --quiet --python {base.interpreter} {VENV}",
            '"$@"',
            f"rm -f {VENV}/.lock",  # uv's own, writable by everybody
            f"find {VENV} -exec touch -h -d @{EPOCH} {{}} +",
        ]
    )
    container = python(base)
    for name, value in UV.items():
        container = container.with_env_variable(name, value)
    return (
        caches.uv(container)
        .with_mounted_file("/usr/local/bin/uv", uv)
        .with_mounted_file("/mnt/requirements.txt", requirements)
        .with_exec(["sh", "-ec", script, "install", *words])
        .without_mount("/usr/local/bin/uv")
        .without_mount("/mnt/requirements.txt")
        .without_mount("/root/.cache/uv")
    )


def compiled(base: Base, sources: dagger.Directory, path: str) -> dagger.Directory:
    """`sources` with bytecode beside them, compiled for the place `path` they will stand at."""
    script = "\n".join(
        [
            f"{base.interpreter} -m compileall -q --invalidation-mode unchecked-hash {path}",
            f"find {path} -exec touch -h -d @{EPOCH} {{}} +",
        ]
    )
    return python(base).with_directory(path, sources).with_exec(["sh", "-ec", script]).directory(path)
