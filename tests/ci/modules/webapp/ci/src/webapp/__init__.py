"""A module that builds an image the way it should be built: two stages, caches, a user, a health check, labels."""

from typing import Annotated

import dagger
from dagger import DefaultPath, Doc, Ignore, dag, function, object_type

BASE = "docker.io/library/python:3.13-slim-trixie@sha256:" + "1" * 64
SOURCE = Annotated[dagger.Directory, DefaultPath("/"), Ignore(["**", "!app/**", "!requirements.txt"])]


@object_type
class Webapp:
    """Builds a small web application."""

    base: Annotated[str, Doc("image to build on")] = BASE

    def _packages(self, source: dagger.Directory) -> dagger.Container:
        """What is installed before any source is there."""
        return (
            dag.container()
            .from_(self.base)
            .with_mounted_cache("/root/.cache", dag.cache_volume("webapp-packages"))
            .with_file("/build/requirements.txt", source.file("requirements.txt"))
            .with_workdir("/build")
            .with_exec(["mkdir", "-p", "/opt/packages"])
            .with_exec(["cp", "requirements.txt", "/opt/packages/installed.txt"])
        )

    @function
    def build_builder(self, source: SOURCE) -> dagger.Container:
        """The image with the packages and the application, compiled."""
        return (
            self._packages(source)
            .with_directory("/opt/app", source.directory("app"))
            .with_exec(["python3", "-m", "compileall", "-q", "/opt/app"])
        )

    @function
    def build_runtime(
        self, source: SOURCE, revision: Annotated[str, Doc("commit of the sources")] = "unknown"
    ) -> dagger.Container:
        """The image that runs."""
        builder = self.build_builder(source)
        return (
            dag.container()
            .from_(self.base)
            .with_directory("/opt/packages", builder.directory("/opt/packages"), owner="10001:10001")
            .with_directory("/opt/app", builder.directory("/opt/app"), owner="10001:10001")
            .with_env_variable("PYTHONUNBUFFERED", "1")
            .with_user("10001:10001")
            .with_workdir("/opt/app")
            .with_exposed_port(8000)
            .with_entrypoint(["python3", "/opt/app/main.py"])
            .with_docker_healthcheck(["python3", "-c", "raise SystemExit(0)"])
            .with_label("org.opencontainers.image.title", "webapp")
            .with_label("org.opencontainers.image.revision", revision)
        )

    @function
    async def size(self, source: SOURCE) -> int:
        """How many files the image's application has; needs a build to know."""
        names = await self.build_runtime(source).directory("/opt/app").glob("**")
        return len(names)

    @function
    async def test(self, source: SOURCE, token: dagger.Secret | None = None) -> dagger.Directory:
        """Run the checks inside the builder and return their reports, or fail with their output."""
        ran = self.build_builder(source)
        if token is not None:
            ran = ran.with_secret_variable("TOKEN", token)
        ran = ran.with_exec(
            ["sh", "-c", "mkdir /reports; echo passed >/reports/result.txt"], expect=dagger.ReturnType.ANY
        )
        if await ran.exit_code():
            raise ValueError(await ran.stdout())
        return ran.directory("/reports")
