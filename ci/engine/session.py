"""A Dagger session: the objects that were asked for, and the HTTP server that clients talk to.

    with Session() as session:                       # serves http://127.0.0.1:<port>/query
        subprocess.run(["python", "pipeline.py"], env=os.environ | session.environment())

The protocol is that of `dagger session`: `POST /query` with HTTP Basic, the token as user and no password.
Nothing here knows of containers; fields do (`fields/`), and `build/` builds what they need.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import depth, graph
from .errors import EngineError, RequestError
from .graph import ROOT, Node
from .ids import leave, remembered
from .needs import Need, Steps
from .registry import resolver
from .schema import FieldDef, Schema, base_name, is_list, load
from .server import Server

if TYPE_CHECKING:
    from .build.builder import Builder
    from .build.images import Images
    from .files.host import Host
    from .secrets import Secrets

ENGINE_VERSION = "v0.21.8"


@dataclass(frozen=True)
class Leaf:
    """A field that would have built or changed something, as a plan notes it: `node.parent` is the object."""

    node: Node
    answer: Any


@dataclass
class Plan:
    """What a session notes instead of building."""

    leaves: list[Leaf] = dataclass_field(default_factory=list[Leaf])


@dataclass(frozen=True)
class Options:
    """How a session builds. Defaults come from the environment (docs/engine.md lists the variables)."""

    builder: str | None = None
    """Name of a buildx builder; None is Docker's own."""
    cache_to: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    """Remote caches, in buildx's own words (`type=local,dest=...`)."""
    provenance: bool = False
    """Attach provenance to what `publish` pushes."""
    bases: str = ""
    """"local": base images only from `agent-loop bases build`; "registry": only from registries."""
    progress: Callable[[str], None] | None = None
    """Is given each line of a build's progress, scrubbed of secrets."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Options:
        """`AGENT_LOOP_BUILDER`, `AGENT_LOOP_CACHE_TO`, `AGENT_LOOP_CACHE_FROM` (one entry a line),
        `AGENT_LOOP_PROVENANCE`, `AGENT_LOOP_BASES`."""
        return cls(
            builder=env.get("AGENT_LOOP_BUILDER") or None,
            cache_to=tuple(env.get("AGENT_LOOP_CACHE_TO", "").split()),
            cache_from=tuple(env.get("AGENT_LOOP_CACHE_FROM", "").split()),
            provenance=env.get("AGENT_LOOP_PROVENANCE", "") in ("1", "true", "yes"),
            bases=env.get("AGENT_LOOP_BASES", ""),
        )


class Session:
    """One session. As a context manager it serves; without, `answer` may be called directly.

    `workdir` is what relative host paths are relative to, `env` where `env://` secrets and options come from.
    With `plan=Plan()` nothing is built or changed: leaves are noted there and answered with placeholders.
    """

    def __init__(
        self,
        *,
        workdir: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        plan: Plan | None = None,
        options: Options | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        from . import fields  # registers what this engine serves

        self.fields = fields
        self.workdir = Path(workdir or Path.cwd()).resolve()
        self.env: Mapping[str, str] = dict(os.environ if env is None else env)
        self.options = options or Options.from_environment(self.env)
        self.plan = plan
        self.schema: Schema = load()
        self.token = secrets.token_hex(16)
        self.port = 0
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._said: set[str] = set()
        self._nodes: dict[str, Node] = {ROOT.id: ROOT}
        self._values: dict[str, tuple[Node, Any]] = {}
        self._older: dict[str, Any] | None = None
        self._server: Server | None = None
        self._scratch: Path | None = None
        self._lock = threading.RLock()
        self._parts: dict[str, Any] = {}
        self.attachments: dict[str, Any] = {}
        """Room for the parts of the engine that register fields of their own (a module's call, say)."""
        self._open = True
        depth.enter()

    # What a session is made of; each made when it is first needed.

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, once a session, whichever threads ask."""
        with self._lock:
            if name not in self._parts:
                self._parts[name] = make()
            return self._parts[name]

    @property
    def host(self) -> Host:
        """Snapshots of host folders."""
        from .files.host import Host

        return self.part("host", lambda: Host(self.workdir))

    @property
    def secrets(self) -> Secrets:
        """Plaintexts by name and by address."""
        from .secrets import Secrets

        return self.part("secrets", lambda: Secrets(self.env, self.workdir))

    @property
    def images(self) -> Images:
        """Base images: configuration and where their layers are."""
        from .build.images import Images

        return self.part("images", lambda: Images(self))

    @property
    def builder(self) -> Builder:
        """Turns needs into BuildKit builds."""
        from .build.builder import Builder

        return self.part("builder", lambda: Builder(self))

    @property
    def scratch(self) -> Path:
        """A folder of this session that is gone when it ends."""
        with self._lock:
            if self._scratch is None:
                self._scratch = Path(tempfile.mkdtemp(prefix="agent-loop-"))
            return self._scratch

    # Objects

    def find(self, handle: str) -> Node | None:
        """The node of an id, also of one that a recent session gave; None where nobody knows it."""
        node = self._nodes.get(handle)
        if node is None:
            if self._older is None:
                self._older = remembered()
            if handle in self._older:
                node = self._nodes[handle] = graph.revive(self._older[handle])
        return node

    def remember(self, node: Node) -> str:
        """Give a node's id out."""
        self._nodes[node.id] = node
        return node.id

    def keep(self, node: Node, value: Any) -> None:
        """Note a value that was worked out elsewhere (a list's member)."""
        self._values[node.key] = node, value

    def value(self, node: Node) -> Generator[list[Need], list[Any], tuple[Node, Any]]:
        """The value of a node, worked out once; with the node that stands in for it, usually itself."""
        from .execute import evaluate

        if node is ROOT:
            return node, None
        known = self._values.get(node.key)
        if known is not None:
            return known
        found = yield from evaluate(self, node)
        assert node.parent is not None
        function = resolver(node.parent.type, node.field)
        if function is None or function.memo:
            self._values[node.key] = found
            self._values.setdefault(found[0].key, found)
        return found

    def get(self, node: Node) -> Any:
        """The value of a node, building what it takes. For parts of the engine that are no field."""
        steps = self.value(node)
        answers: Any = None
        while True:
            try:
                needs = steps.send(answers)
            except StopIteration as done:
                return done.value[1]
            answers = self.build(needs)
            failed = next((a for a in answers if isinstance(a, BaseException)), None)
            if failed is not None:
                raise failed

    def scalar(self, node: Node, parent: Any, found: FieldDef) -> Steps:
        """What a field that is no object answers; in a plan, a placeholder instead of a build or an effect."""
        from .execute import call

        if self.plan is None:
            return (yield from call(self, node, parent))
        assert node.parent is not None
        function = resolver(node.parent.type, node.field)
        if function is None or not function.effect:
            steps = call(self, node, parent)
            try:
                steps.send(None)  # type: ignore[arg-type]
            except StopIteration as done:
                return done.value
            steps.close()
        answer = function.placeholder if function else None
        if callable(answer):
            answer = answer(node.args)
        elif answer is None:
            answer = _placeholder(found.type, node)
        self.plan.leaves.append(Leaf(node, answer))
        return answer

    def build(self, needs: list[Need]) -> list[Any]:
        """Answers of one round of needs; a need that failed has its error as answer."""
        if self.plan is not None:
            raise EngineError("A plan builds nothing, yet a build was asked for. Report this with the command used.")
        return self.builder.answer(needs)

    def say(self, key: str, line: str) -> None:
        """Tell the person something, once a session."""
        with self._lock:
            if key in self._said:
                return
            self._said.add(key)
        self._say(line)

    # Serving

    def answer(
        self, query: str, variables: Mapping[str, Any] | None = None, operation: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """HTTP status and GraphQL answer of one query."""
        from .execute import run
        from .query import prepare

        try:
            return 200, run(self, prepare(self.schema, query, variables, operation))
        except RequestError as error:
            return error.status, {"errors": error.errors, "data": None}
        except EngineError as error:
            return 200, {"errors": [{"message": str(error)}], "data": None}

    def environment(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {"DAGGER_SESSION_PORT": str(self.port), "DAGGER_SESSION_TOKEN": self.token}

    def __enter__(self) -> Session:
        self._server = Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving, end what builds, remove the scratch folder. May be called twice."""
        if "builder" in self._parts:
            self._parts["builder"].close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self.plan is None:
            leave({i: n for i, n in self._nodes.items() if n is not ROOT})
        self._nodes = {ROOT.id: ROOT}
        with self._lock:
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)
                self._scratch = None
            if self._open:
                self._open = False
                depth.leave()


def _placeholder(type_text: str, node: Node) -> Any:
    if is_list(type_text):
        return []
    match base_name(type_text):
        case "ID":
            return node.parent
        case "Int":
            return 0
        case "Float":
            return 0.0
        case "Boolean":
            return False
        case "Void":
            return None
        case _:
            return ""
