"""Images from other people's Dockerfiles: `Directory.dockerBuild`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ci.engine.errors import BuildFailed, ExecError, FieldError
from ci.engine.files.fs import Image, folder_at, plain
from ci.engine.files.tree import clean
from ci.engine.needs import DockerBuild
from ci.engine.values import Container

from .buildkit import Job
from .dockerfile import Context
from .images import Resolved

if TYPE_CHECKING:
    from .builder import Builder

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def docker_build(builder: Builder, need: DockerBuild) -> Container:
    """Build a Dockerfile from a directory; the container that it makes. Raises FieldError, ExecError."""
    fs = builder.resolver.files(need.context.fs)
    tree = plain(fs, builder.trees) if fs.static else builder.pull(fs)
    tree = folder_at(tree, need.context.path)
    text = tree.text(clean(need.dockerfile))
    if text is None:
        raise FieldError(
            f'failed to read Dockerfile "{need.dockerfile}": open /{clean(need.dockerfile)}: no such file or directory'
        )
    if not text.strip():
        raise FieldError("failed to convert Dockerfile to LLB: the Dockerfile cannot be empty")
    folder = builder.context(Context(f"dockerfile-{tree.key[:12]}", tree))
    layout = builder.session.scratch / f"built-{len(list(builder.session.scratch.glob('built-*')))}"
    contexts = _bases(builder, text, need.platform, dict(need.args))
    secrets = {s.label or s.handle: builder.session.secrets.plaintext(s) for s in need.secrets}
    job = Job(
        _without_syntax(text),
        need.target,
        Path(folder),
        contexts=contexts,
        secrets=secrets,
        args=dict(need.args),
        output=f"type=oci,tar=false,dest={layout},rewrite-timestamp=true",
        platform="" if need.platform == builder.platform else need.platform,
        options=("--provenance=false",),
        raw=True,
    )
    try:
        builder.buildkit.run(job)
    except BuildFailed as failed:
        raise _build_error(failed) from None
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"]
    manifest = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
    config = json.loads((layout / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text())
    from ci.engine.fields.container import configured

    found = Resolved(f"dockerfile@{digest}", config.get("config") or {}, f"oci-layout://{layout}@{digest}")
    image = Image(found.reference, need.platform, found.context)
    builder.session.images.keep(image, found)
    return configured(Container(need.platform, fs=image), found.config)


def _without_syntax(text: str) -> str:
    """A Dockerfile without its `# syntax` line, which would fetch a frontend image."""
    return re.sub(r"(?im)\A(\s*)#\s*syntax\s*=.*$", r"\1#", text, count=1)


def _bases(builder: Builder, text: str, platform: str, given: dict[str, str]) -> dict[str, str]:
    """Contexts for base images that are made here, by the name that the Dockerfile has for them."""
    found: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    known = _arguments(text) | given
    for match in re.finditer(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:[ \t]+AS[ \t]+(\S+))?", text):
        name = VARIABLE.sub(lambda v: known.get(v[1] or v[2], v[0]), match[1])
        if name.lower() not in stages and "$" not in name:
            image = builder.session.images.resolve(name, platform)
            if image.context:
                found[name] = image.context
        if match[2]:
            stages.add(match[2].lower())
    return found


def _arguments(text: str) -> dict[str, str]:
    """Defaults of the arguments that stand before the first FROM, which a base may be named by."""
    head = re.split(r"(?im)^\s*FROM\s", text, maxsplit=1)[0]
    found = re.findall(r"(?im)^\s*ARG\s+(\w+)=(\S+)\s*$", head)
    return {name: value.strip("\"'") for name, value in found}


def _build_error(failed: BuildFailed) -> FieldError:
    if failed.exit_code is not None:
        command = re.search(r'process "(.*)" did not complete', failed.reason)
        words = command[1].replace('\\"', '"').split(" ", 2) if command else []
        return ExecError(words, failed.exit_code, failed.stdout, failed.stderr,
                         f"failed to clone built container state: exit code: {failed.exit_code}")  # fmt: skip
    return FieldError(f"failed to convert Dockerfile to LLB: {failed.reason}")
