"""A module whose images break every policy, one each."""

from typing import Annotated

import dagger
from dagger import DefaultPath, Ignore, dag, function, object_type

PINNED = "docker.io/library/python:3.13-slim-trixie@sha256:" + "1" * 64
SOURCE = Annotated[dagger.Directory, DefaultPath("/"), Ignore(["**", "!app/**", "!requirements.txt"])]


@object_type
class Careless:
    """Builds images that should not be built so."""

    @function
    def build_floating(self) -> dagger.Container:
        """A base without a digest."""
        return dag.container().from_("python:3.13-slim").with_user("10001")

    @function
    def build_root(self) -> dagger.Container:
        """Runs as root."""
        return dag.container().from_(PINNED)

    @function
    def build_named_user(self) -> dagger.Container:
        """Runs as a user that only a passwd file knows."""
        return dag.container().from_(PINNED).with_user("www-data")

    @function
    async def build_leaky(self, token: dagger.Secret) -> dagger.Container:
        """Copies a secret into the environment and the arguments."""
        plain = await token.plaintext()
        return (
            dag.container()
            .from_(PINNED)
            .with_env_variable("TOKEN", plain)
            .with_exec(["echo", f"--token={plain}"])
            .with_user("10001")
        )

    @function
    def build_caching(self) -> dagger.Container:
        """Leaves a package manager's cache in the image."""
        return (
            dag.container()
            .from_(PINNED)
            .with_exec(["sh", "-c", "apt-get update && apt-get install -y git"])
            .with_exec(["pip", "install", "nothing"])
            .with_user("10001")
        )

    @function
    def build_busting(self, source: SOURCE) -> dagger.Container:
        """Copies the sources before it installs what they need."""
        return (
            dag.container()
            .from_(PINNED)
            .with_directory("/src", source)
            .with_mounted_cache("/root/.cache", dag.cache_volume("careless"))
            .with_exec(["pip", "install", "-r", "/src/requirements.txt"])
            .with_user("10001")
        )

    @function
    def build_runtime(self) -> dagger.Container:
        """A runtime image with a compiler, uv and the development group, without health check or labels."""
        return (
            dag.container()
            .from_(PINNED)
            .with_mounted_cache("/var/cache/apt", dag.cache_volume("careless-apt"))
            .with_mounted_cache("/var/lib/apt", dag.cache_volume("careless-apt-lists"))
            .with_mounted_cache("/root/.cache", dag.cache_volume("careless"))
            .with_exec(["apt-get", "install", "-y", "--no-install-recommends", "gcc"])
            .with_exec(["uv", "sync", "--group", "dev"])
            .with_exec(["uv", "pip", "install", "torch"])
            .with_user("10001")
        )
