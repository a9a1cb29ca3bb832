"""The pipelines as the wrapper asks them: several images in one session, with one process of the module.

    with pipelines.opened(at_once=True) as export:
        export({"agent-loop/runtime:local": ["build-runtime"], "agent-loop/dev:local": ["build-dev"]})

The same as an `agent-loop call … export-image --name TAG` for each, without the price of one: dagger is imported once,
the module's constructor runs once, and while a function of the module runs, the image before is built already.
Whoever is sure to export opens at once: the module's process then imports dagger while the machine is looked at.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ci.stack.errors import BuildFailed
from ci.stack.images import Export
from ci.stack.project import ROOT
from ci.stack.reporting import say

if TYPE_CHECKING:
    from ci.engine.module.session import OpenModule


@contextlib.contextmanager
def opened(*, at_once: bool = False) -> Generator[Export]:
    """A function that builds and loads images of this repository's module; session and process end with the block."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(_session())] if at_once else []

        def export(lines: Mapping[str, Sequence[str]]) -> None:
            if not made:
                made.append(stack.enter_context(_session()))
            _export(made[0], lines)

        yield export


def _session() -> contextlib.AbstractContextManager[OpenModule]:
    """This repository's module, opened as a command line without options opens it."""
    from ci.engine.module.process import ahead

    ahead([])  # before the engine itself is imported
    from ci.engine.call.args import Options
    from ci.engine.call.cli import session_options
    from ci.engine.module.session import opened as open_module
    from ci.engine.module.source import find

    return open_module(find(str(ROOT)), say, session_options(Options(), say))


def _export(module: OpenModule, lines: Mapping[str, Sequence[str]]) -> None:
    """Build and load the container that each tag's words make (of one at least).

    Raises BuildFailed, having ended the other builds.
    """
    from ci.engine.call.args import parse
    from ci.engine.call.core import TypeCatalog
    from ci.engine.call.invoke import Invocation
    from ci.engine.call.load import Loader
    from ci.engine.ending import on_end
    from ci.engine.module.api import Field
    from ci.engine.module.session import registered
    from ci.engine.module.source import find

    source, api = find(str(ROOT)), module.api
    with on_end(), ThreadPoolExecutor(len(lines)) as beside:
        try:
            with _told(*next(iter(lines.items()))):
                catalog = TypeCatalog.of(source.name, registered(source, say))
                # Made before threads ask for them: from Python 3.12 on two would make two.
                _ = module.session.builder.folder, module.session.builder.buildkit
            # It makes the module's object once for all lines.
            invocation = Invocation(source.name, catalog, api, module.functions, Loader(api, source), evaluate=False)
            loads: dict[str, Future[Any]] = {}
            for tag, words in lines.items():
                with _told(tag, words):
                    container = invocation.run(parse(words, catalog))
                leaf = Field("exportImage", {"name": json.dumps(tag)})
                loads[tag] = beside.submit(api.chain, container.type, container.ident, [leaf])
            for tag, load in loads.items():
                with _told(tag, lines[tag]):
                    load.result()
        except BaseException:
            module.session.close()  # ends what still builds, for which leaving the block would wait
            raise


@contextlib.contextmanager
def _told(tag: str, words: Sequence[str]) -> Generator[None]:
    """Show what goes wrong inside as `agent-loop call` does, and say which image it was."""
    from ci.engine.errors import EngineError
    from ci.engine.module.errors import CallError

    try:
        yield
    except (CallError, EngineError) as error:
        say(f"Error: {error.text if isinstance(error, CallError) else error}")
        again = f"agent-loop call {' '.join(words)} export-image --name {tag}"
        raise BuildFailed(f"Building {tag} failed, see above. '{again}' does it alone.") from None
