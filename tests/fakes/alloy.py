"""Grafana Alloy's part in the logs profile where the program cannot be had: its syntax, and the stages we use.

    config = parse(text, {"AGENT_LOOP_PROJECT": "mine"})     blocks and values; ValueError with the line otherwise
    for entry in collected(config, root): …                  what `loki.write` would send of the files below `root`

Written after the component reference and the configuration syntax of Alloy's documentation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TOKEN = re.compile(
    r"""(?P<newline>\n)|(?P<skip>[ \t\r]+|//[^\n]*|/\*.*?\*/)|(?P<text>"(?:\\.|[^"\\\n])*"|`[^`]*`)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<number>\d+(?:\.\d+)?)|(?P<mark>[{}\[\]().,=+])""",
    re.S,
)
ENDS = re.compile(r"""["`\w)\]}]$""")
"""A token after which the end of a line ends a statement; a list or object over several lines needs a comma there."""


@dataclass(frozen=True)
class Reference:
    """What another component exports, as `loki.write.local.receiver`."""

    name: str


@dataclass(frozen=True)
class Block:
    """`NAME "LABEL" { … }`: attributes by name, inner blocks in order."""

    name: str
    label: str
    attributes: Mapping[str, Any]
    blocks: Sequence[Block]

    def one(self, name: str) -> Block:
        """The only inner block of that name."""
        (found,) = [block for block in self.blocks if block.name == name]
        return found


@dataclass
class _Reader:
    tokens: list[tuple[str, int]]
    environment: Mapping[str, str]
    at: int = 0

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        found = self.peek()
        if not found or (wanted and found != wanted):
            line = self.tokens[min(self.at, len(self.tokens) - 1)][1]
            raise ValueError(f"line {line}: {found!r} where {wanted or 'more'!r} is due")
        self.at += 1
        return found

    def name(self) -> str:
        words = [self.take()]
        while self.peek() == ".":
            words += [self.take("."), self.take()]
        return "".join(words)

    def body(self, end: str) -> tuple[dict[str, Any], list[Block]]:
        attributes: dict[str, Any] = {}
        blocks: list[Block] = []
        while self.peek() != end:
            if self.peek() == "\n":
                self.take()
                continue
            name = self.name()
            if self.peek() == "=":
                self.take()
                if name in attributes:
                    raise ValueError(f"attribute {name!r} is given twice")
                attributes[name] = self.value()
            else:
                label = "" if self.peek() == "{" else json.loads(self.take())
                self.take("{")
                blocks.append(Block(name, label, *self.body("}")))
                self.take("}")
            if self.peek() != end:
                self.take("\n")
        return attributes, blocks

    def value(self) -> Any:
        found = self.operand()
        while self.peek() == "+":
            self.take()
            found += self.operand()
        return found

    def operand(self) -> Any:
        token = self.peek()
        if token == "[":
            return self.several("[", "]", self.value)
        if token == "{":
            return dict(self.several("{", "}", self.pair))
        if token[:1] in ('"', "`"):
            return json.loads(self.take()) if token[0] == '"' else self.take()[1:-1]
        if token in ("true", "false"):
            return self.take() == "true"
        if token[:1].isdigit():
            return float(self.take())
        name = self.name()
        if self.peek() != "(":
            return Reference(name)
        if name != "sys.env":
            raise ValueError(f"this stand-in does not know {name}()")
        self.take("(")
        variable = self.value()
        self.take(")")
        return self.environment.get(variable, "")

    def pair(self) -> tuple[str, Any]:
        name = self.take()
        self.take("=")
        return (json.loads(name) if name[0] == '"' else name), self.value()

    def several(self, start: str, end: str, one: Callable[[], Any]) -> list[Any]:
        self.take(start)
        found = []
        while self.peek() != end:
            found.append(one())
            if self.peek() != end:
                self.take(",")
        self.take(end)
        return found


def parse(text: str, environment: Mapping[str, str]) -> Block:
    """The file as one block without a name. Raises ValueError with the line of what Alloy's syntax does not have."""
    tokens: list[tuple[str, int]] = []
    at, line = 0, 1
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"line {line}: no token begins with {text[at : at + 10]!r}")
        token = found[0]
        if found.lastgroup != "skip" and (token != "\n" or (tokens and ENDS.search(tokens[-1][0]))):
            tokens.append((token, line))
        line += token.count("\n")
        at = found.end()
    return Block("", "", *_Reader([*tokens, ("", line)], environment).body(""))


@dataclass
class Entry:
    """A line on its way through the stages."""

    line: str
    labels: dict[str, str]
    time: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    extracted: dict[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> str | None:
        """An extracted value as text; None for what is not there or is null."""
        found = self.extracted.get(name)
        return found if found is None or isinstance(found, str) else json.dumps(found)


def _search(expression: str, data: Any) -> Any:
    """JMESPath, as far as names joined by dots, quoted where they hold a dot themselves."""
    names = re.findall(r'"((?:\\.|[^"])*)"|(\w+)', expression)
    if ".".join(f'"{quoted}"' if quoted else plain for quoted, plain in names) != expression:
        raise ValueError(f"more JMESPath than this stand-in knows: {expression}")
    for quoted, plain in names:
        data = data.get(quoted or plain) if isinstance(data, dict) else None
    return data


def _json(block: Block, entry: Entry) -> bool:
    source = block.attributes.get("source")
    try:
        data = json.loads(entry.line if source is None else entry.value(source) or "")
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return not block.attributes.get("drop_malformed", False)
    for name, expression in block.attributes["expressions"].items():
        entry.extracted[name] = _search(expression or name, data)
    return True


def _docker(block: Block, entry: Entry) -> bool:
    data = json.loads(entry.line)
    entry.line, entry.time, entry.labels["stream"] = data["log"], data["time"], data["stream"]
    return True


def _labels(block: Block, entry: Entry) -> bool:
    for name, source in block.attributes["values"].items():
        if (value := entry.value(source or name)) is not None:
            entry.labels[name] = value
    return True


def _metadata(block: Block, entry: Entry) -> bool:
    for name, source in block.attributes["values"].items():
        if (value := entry.value(source or name)) is not None:
            entry.metadata[name] = value
        if (source or name) in entry.labels:
            entry.metadata[name] = entry.labels.pop(source or name)
    return True


def _static(block: Block, entry: Entry) -> bool:
    entry.labels |= {name: value for name, value in block.attributes["values"].items() if value}
    return True


def _without(block: Block, entry: Entry) -> bool:
    for name in block.attributes["values"]:
        entry.labels.pop(name, None)
    return True


def _match(block: Block, entry: Entry) -> bool:
    """Only what we use: one matcher of equality, and to drop."""
    selector = re.fullmatch(r'\{(\w+)(!?=)"([^"]*)"\}', block.attributes["selector"])
    if selector is None or block.attributes["action"] != "drop":
        raise ValueError(f"more than this stand-in knows: {block.attributes}")
    return (entry.labels.get(selector[1], "") == selector[3]) is (selector[2] == "!=")


STAGES: Mapping[str, Callable[[Block, Entry], bool]] = {
    "stage.json": _json,
    "stage.docker": _docker,
    "stage.labels": _labels,
    "stage.structured_metadata": _metadata,
    "stage.static_labels": _static,
    "stage.label_drop": _without,
    "stage.match": _match,
}
"""What each does to an entry; False drops it."""


def processed(process: Block, entry: Entry) -> Entry | None:
    """The entry after a `loki.process` component's stages, in their order; None where one dropped it."""
    return entry if all(STAGES[stage.name](stage, entry) for stage in process.blocks) else None


def collected(config: Block, containers: Path) -> Iterator[Entry]:
    """What would be sent of the engine's files, whose folder is mounted at /var/lib/docker/containers."""
    (target,) = config.one("local.file_match").attributes["path_targets"]
    pattern = target["__path__"].removeprefix("/var/lib/docker/containers/")
    for path in sorted(containers.glob(pattern)):
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:  # another container's, which ended meanwhile
            continue
        for line in lines:
            if entry := processed(config.one("loki.process"), Entry(line, {"filename": str(path)})):
                yield entry
