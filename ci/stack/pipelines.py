"""The pipelines as the wrapper asks them: several images in one session, with one process of the module.

    with pipelines.opened({"agent-loop/dev:local": ["build-dev"], …}) as export:
        export({"agent-loop/dev:local": ["build-dev"], …})

The same as an `agent-loop call … export-image --name TAG` for each, without the price of one: dagger is imported once,
the module's constructor runs once, and while a function of the module runs, the image before is built already. Where
every image was described before by the same code (`descriptions`), the module is not run at all.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ci.stack.descriptions import Descriptions
from ci.stack.errors import BuildFailed
from ci.stack.images import Export
from ci.stack.project import ROOT
from ci.stack.reporting import say

if TYPE_CHECKING:
    from ci.engine.call.core import TypeCatalog
    from ci.engine.call.invoke import Invocation
    from ci.engine.graph import Node
    from ci.engine.module.session import OpenModule
    from ci.engine.session import Options, Session

Lines = Mapping[str, Sequence[str]]
"""The words of `agent-loop call` that make an image, by the tag it is loaded under."""


@contextlib.contextmanager
def opened(expected: Lines | None = None) -> Generator[Export]:
    """A function that builds and loads images of this repository's module; what it opens ends with the block.

    For images that are `expected` and were not described yet the module's process starts at once: it imports dagger
    while whatever comes before is done.
    """
    with contextlib.ExitStack() as stack:
        pipelines = _Pipelines(stack)
        if expected and not pipelines.described(expected):
            pipelines.open_module()
        yield pipelines.export


class _Pipelines:
    """This repository's module and the session that it is asked in, each opened when first needed."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._descriptions = Descriptions.of_this_repository()
        self._module: OpenModule | None = None

    def described(self, lines: Lines) -> bool:
        """Whether none of them needs the module."""
        return all(self._descriptions.find(words) for words in lines.values())

    def open_module(self) -> OpenModule:
        """The module in a session of its own, as a command line without options opens it."""
        if self._module is None:
            from ci.engine.module.process import ahead

            ahead([])  # before the engine itself is imported
            from ci.engine.module.session import opened as open_module
            from ci.engine.module.source import find

            self._module = self._stack.enter_context(open_module(find(str(ROOT)), say, _options()))
        return self._module

    def export(self, lines: Lines) -> None:
        """Build and load the container that each tag's words make. Raises BuildFailed, having ended other builds."""
        from ci.engine.ending import on_end
        from ci.engine.module.api import Api, Field

        session = self._session(lines)
        api = Api(lambda query: session.answer(query)[1])
        with on_end(), ThreadPoolExecutor(max(1, len(lines))) as beside:
            try:
                loads: dict[str, Future[Any]] = {}
                for tag, words in lines.items():
                    with _told(tag, words):
                        container = self._descriptions.find(words) or self._describe(words)
                    leaf = Field("exportImage", {"name": json.dumps(tag)})
                    loads[tag] = beside.submit(api.chain, container.type, session.remember(container), [leaf])
                for tag, load in loads.items():
                    with _told(tag, lines[tag]):
                        load.result()
            except BaseException:
                session.close()  # ends what still builds, for which leaving the block would wait
                raise

    def _session(self, lines: Lines) -> Session:
        """The module's, or one without a module where that is enough."""
        if self._module is not None or not self.described(lines):
            return self.open_module().session
        from ci.engine.session import Session

        made = Session(options=_options(), say=say)
        self._stack.callback(made.close)
        return made

    def _describe(self, words: Sequence[str]) -> Node:
        """Let the module say what these words make, and keep it. Raises CallError."""
        from ci.engine.call.args import parse

        catalog, invocation = self._calls
        made = invocation.run(parse(words, catalog))
        node = self.open_module().session.find(made.ident)
        assert node is not None, "an id that the session gave is known to it"
        self._descriptions.keep(words, node)
        return node

    @cached_property
    def _calls(self) -> tuple[TypeCatalog, Invocation]:
        """What can be called, and who calls it: the module's object is made once for all lines."""
        from ci.engine.call.core import TypeCatalog
        from ci.engine.call.invoke import Invocation
        from ci.engine.call.load import Loader
        from ci.engine.module.session import registered
        from ci.engine.module.source import find

        source, module = find(str(ROOT)), self.open_module()
        catalog = TypeCatalog.of(source.name, registered(source, say))
        loader = Loader(module.api, source)
        return catalog, Invocation(source.name, catalog, module.api, module.functions, loader, evaluate=False)


def _options() -> Options:
    """How a command line without options builds."""
    from ci.engine.call.args import Options as Words
    from ci.engine.call.cli import session_options

    return session_options(Words(), say)


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
