"""The images, as functions from sources to containers. Nothing here runs until somebody asks a container for a result.

Order within a stage: base, system packages, environment variables, `/app/.venv`, sources, user and start, labels.
What changes most often comes last, so a source edit adds one small layer and a new commit none at all.
"""

from __future__ import annotations

import dagger
from dagger import dag

from agent_loop_ci import environment
from agent_loop_ci.bases import PYTHON, TRAINER_UID, UID, owner
from agent_loop_ci.environment import VENV
from agent_loop_ci.labels import Release, checked, labelled

RUNTIME = {
    "PATH": f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
SERVICE = {
    "AGENT_LOOP_HOST": "0.0.0.0",  # noqa: S104  (a container is reached through its own network only)
    "AGENT_LOOP_PORT": "8000",
    "AGENT_LOOP_DATA_DIR": "/data",
}
TRAINING = {
    "HF_HOME": "/models",
    # Read by NVIDIA's container runtime; without it they mean nothing.
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
}
TESTING = {
    # The repository is not the user's to write to; these are the container's own.
    "HOME": "/tmp",  # noqa: S108
    "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",  # noqa: S108
}
OPS_FOLDERS = ("/data", "/logs", "/drift", "/backups")
TRAINING_FOLDERS = ("/models", "/gguf", "/checkpoints", "/logs", "/runs")

LIBRARIES = ("libgomp1",)
"""What the service's wheels load from the system: llama.cpp computes with OpenMP."""

POSTGRESQL = (
    "postgresql-client-17",
    "libpq5",
    "libldap2",
    "libsasl2-2",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libkrb5support0",
    "libkeyutils1",
    "libcom-err2",
)
"""pg_dump and pg_restore for backups, and what they load; the package's Perl wrapper and its Perl stay out."""

TEST_PACKAGES = ("chromium", "nginx", "postgresql", "prometheus", "prometheus-alertmanager", *LIBRARIES)
"""What tests in the test container talk to: a browser, a proxy, a database, promtool, amtool."""

COMPILER = ("gcc", "libc6-dev", "libpython3-dev")
"""Triton compiles a launcher, an extension of Python, for each kernel when it first runs."""


def builder(
    source: dagger.Directory,
    purpose: str,
    *,
    platform: dagger.Platform | None = None,
    requirements: dagger.File | None = None,
    options: tuple[str, ...] = (),
) -> dagger.Container:
    """The container that made `/app/.venv` from `requirements/<purpose>.txt`, or from `requirements` if given."""
    uv = environment.uv_binary(PYTHON, source.file("requirements/uv.txt"))
    locked = requirements or source.file(f"requirements/{purpose}.txt")
    return environment.installed(PYTHON, uv, locked, platform=platform, options=options)


def application(
    source: dagger.Directory,
    purpose: str,
    package: str,
    *,
    variables: dict[str, str] | None = None,
    folders: tuple[str, ...] = ("/data",),
    platform: dagger.Platform | None = None,
    compile_sources: bool = True,
    libraries: tuple[str, ...] = (),
) -> dagger.Container:
    """The base with `/app/.venv` and the package's sources at `/app/<package>`: copies only, no step runs.

    All belongs to root, so that a service taken over cannot change itself; only `folders` are the user's own.
    """
    sources = source.directory(package)
    if compile_sources:
        sources = environment.compiled(PYTHON, sources, f"/app/{package}")
    system = environment.python(PYTHON, platform)
    if libraries:
        system = system.with_directory("/", environment.libraries(PYTHON, libraries, platform))
    return (
        _owned(_with_variables(system, RUNTIME | (variables or {})), folders, UID)
        .with_workdir("/app")
        .with_directory(VENV, builder(source, purpose, platform=platform).directory(VENV))
        .with_directory(f"/app/{package}", sources)
        .with_user(owner(UID))
    )


def runtime(source: dagger.Directory, release: Release, *, platform: dagger.Platform | None = None) -> dagger.Container:
    """The service's image: no compiler, no uv, no development tools; /data is the only folder it may write to."""
    container = application(source, "service", "service", variables=SERVICE, platform=platform, libraries=LIBRARIES)
    return labelled(_serving(container, ["serve"]), "agent-loop service", PYTHON, release)


def dev(source: dagger.Directory, release: Release) -> dagger.Container:
    """The service with reload: mount the working copy over /app/service and edit.

    Its sources carry no bytecode: the unchecked kind would hide an edit.
    """
    container = application(source, "service", "service", variables=SERVICE, compile_sources=False, libraries=LIBRARIES)
    return labelled(_serving(container, ["serve", "--reload"]), "agent-loop dev", PYTHON, release)


def _serving(container: dagger.Container, command: list[str]) -> dagger.Container:
    """How the service's images start and how they are asked for their health."""
    return checked(
        container.with_exposed_port(8000)
        .with_entrypoint([environment.PYTHON, "-m", "service"])
        .with_default_args(command),
        [environment.PYTHON, "-m", "service.healthcheck"],
    )


def ops(source: dagger.Directory, release: Release, *, platform: dagger.Platform | None = None) -> dagger.Container:
    """The jobs beside the service: drift, GPU monitor, backup. `python -m observability JOB`."""
    container = application(
        source, "ops", "observability", folders=OPS_FOLDERS, platform=platform, libraries=POSTGRESQL
    ).with_entrypoint([environment.PYTHON, "-m", "observability"])
    return labelled(_importable(container, "observability"), "agent-loop ops", PYTHON, release)


def training(
    source: dagger.Directory,
    release: Release,
    *,
    tools: bool = False,
    torch_index: str = "",
    requirements: dagger.File | None = None,
) -> dagger.Container:
    """The trainer's image: torch's own CUDA libraries, a C compiler for Triton, user `trainer`.

    With `tools` it holds Jupyter Lab and Weights & Biases too.

    `torch_index` is asked besides the default index, and `requirements` replaces `requirements/trainer.txt`:
    together they build for another CUDA than the default wheels' (13).
    """
    options = ("--index", torch_index, "--index-strategy", "unsafe-best-match") if torch_index else ()
    made = builder(source, "tracking" if tools else "trainer", requirements=requirements, options=options)
    sources = environment.compiled(PYTHON, source.directory("trainer"), "/app/trainer")
    user = f"useradd --uid {TRAINER_UID} --user-group --create-home --shell /usr/sbin/nologin trainer"
    system = environment.packages(environment.python(PYTHON), COMPILER, then=user)
    container = (
        _owned(_with_variables(system, RUNTIME | TRAINING), TRAINING_FOLDERS, TRAINER_UID)
        .with_workdir("/app")
        .with_directory(VENV, made.directory(VENV))
        .with_directory("/app/trainer", sources)
        .with_user(owner(TRAINER_UID))
        .with_entrypoint([environment.PYTHON, "-m", "trainer"])
    )
    return labelled(_importable(container, "trainer"), "agent-loop trainer", PYTHON, release)


def test(source: dagger.Directory, release: Release) -> dagger.Container:
    """The test image: the suite, what it imports, and the programs it talks to; reports go to /reports."""
    user = f"useradd --uid {UID} --user-group --shell /usr/sbin/nologin tests"  # PostgreSQL looks the name up
    system = environment.packages(environment.python(PYTHON), TEST_PACKAGES, then=user)
    container = (
        _owned(_with_variables(system, RUNTIME | TESTING), ("/reports",), UID)
        .with_directory(VENV, builder(source, "test").directory(VENV))
        .with_directory("/app", source)
        .with_workdir("/app")
        .with_user(owner(UID))
        .with_entrypoint([environment.PYTHON, "-m", "pytest"])
    )
    return labelled(_importable(container, "pytest"), "agent-loop test", PYTHON, release)


def _importable(container: dagger.Container, package: str) -> dagger.Container:
    """A job listens on nothing: its health check is that interpreter, environment and package load."""
    return checked(container, [environment.PYTHON, "-c", f"import {package}"])


def _owned(container: dagger.Container, folders: tuple[str, ...], uid: int) -> dagger.Container:
    """Empty folders that the user may write to; a fresh volume mounted on one takes its owner from here."""
    for folder in folders:
        container = container.with_directory(folder, dag.directory(), owner=owner(uid))
    return container


def _with_variables(container: dagger.Container, variables: dict[str, str]) -> dagger.Container:
    for name, value in variables.items():
        container = container.with_env_variable(name, value)
    return container
