"""From words to a call: which functions, with which arguments and options. Pure; runs and loads nothing.

    parse(["--greeting", "hey", "make-report", "headline", "--prefix", "#", "-j"], catalog)

walks the words as Dagger does: flags of the constructor, a function, its flags, a function of what that returns,
and so on. Flags that belong to the program (`-j`, `-o`, `--progress` …) may stand anywhere. What is wrong is
told about the function it belongs to, missing flags all at once, and before an unknown word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ci.engine.module.errors import PROGRAM, UsageError
from ci.engine.module.names import kebab
from ci.engine.module.types import BOOLEAN, OBJECT, Argument, EnumType, Function, ObjectType, TypeRef

from . import values as values
from .values import Value


class Catalog(Protocol):
    """All types a call can meet: the module's own and the core API's."""

    @property
    def main(self) -> str:
        """The name of the module's main object."""
        ...

    def object(self, name: str) -> ObjectType | None: ...
    def enum(self, name: str) -> EnumType: ...


@dataclass(frozen=True)
class Option:
    """A flag of the program itself."""

    name: str
    short: str = ""
    takes_value: bool = False
    help: str = ""


OPTIONS = (
    Option("json", "j", False, "Present the result as JSON"),
    Option("output", "o", True, "Save the result to a local file or folder"),
    Option("mod", "m", True, "Folder of the module (default: the one that holds the nearest dagger.json)"),
    Option("progress", "", True, "How progress is shown: auto, plain, tty"),
    Option("silent", "s", False, "Show no progress at all"),
    Option("quiet", "q", False, "Show less progress"),
    Option("verbose", "v", False, "Show more progress"),
    Option("debug", "d", False, "Show everything, with tracebacks"),
    Option("cache-to", "", True, "Export the build cache, as `docker buildx build --cache-to` takes it"),
    Option("cache-from", "", True, "Import a build cache, as `docker buildx build --cache-from` takes it"),
    Option("help", "h", False, "Show this page"),
)


@dataclass
class Options:
    """The program's own flags as given: name -> texts, in order (a bare flag gives an empty text)."""

    given: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def has(self, name: str) -> bool:
        return name in self.given

    def last(self, name: str) -> str | None:
        return self.given[name][-1] if name in self.given else None

    def all(self, name: str) -> list[str]:
        return self.given.get(name, [])


@dataclass(frozen=True)
class Step:
    """One function with the arguments that were given. `command` is the command line up to it."""

    function: Function
    owner: ObjectType
    given: Mapping[str, Value]
    command: str


@dataclass(frozen=True)
class CallLine:
    """A parsed command line. `target` is what the last word names (None: the module itself)."""

    constructor: Step
    steps: tuple[Step, ...]
    options: Options

    @property
    def last(self) -> Step:
        return self.steps[-1] if self.steps else self.constructor


def offered(obj: ObjectType) -> dict[str, Function]:
    """The functions that can be called from a command line, by their words, sorted."""
    able = [f for f in obj.functions.values() if not unsupported(f)]
    return {kebab(f.name): f for f in sorted(able, key=lambda f: kebab(f.name))}


def unsupported(function: Function) -> bool:
    """Whether it takes something that no word can name, such as an object of the module's own."""
    return any(not values.supported(a.type) and a.required for a in function.arguments)


def next_object(ref: TypeRef, catalog: Catalog) -> ObjectType | None:
    """What a following word chooses from after a result of this type."""
    inner = ref.innermost
    return catalog.object(inner.name) if inner.kind == OBJECT else None


def take_options(words: list[str], command: str) -> Options:
    """Take the program's own flags out of `words`, wherever they stand. Raises UsageError on any other flag."""
    options, rest = Options(), list[str]()
    while words:
        for _ in _take(words, {}, options, command):
            pass
        if words:
            rest.append(words.pop(0))
    words[:] = rest
    return options


def leading_options(words: list[str], command: str) -> list[str]:
    """Take the program's own flags off the front of `words` and return them as words."""
    before = list(words)
    for _ in _take(words, {}, Options(), command):
        pass
    return before[: len(before) - len(words)]


def parse(words: Sequence[str], catalog: Catalog, options: Options | None = None) -> CallLine:
    """Parse what follows `call`. Raises UsageError. With `--help` among the flags nothing counts as missing."""
    before = dict(options.given) if options else {}
    if any(word in ("-h", "--help") for word in words):
        line = _parse(words, catalog, Options(dict(before)), lenient=True)
        if line.options.has("help"):
            return line
    return _parse(words, catalog, Options(before), lenient=False)


def _parse(words: Sequence[str], catalog: Catalog, options: Options, lenient: bool) -> CallLine:
    queue = list(words)
    command = f"{PROGRAM} call"
    main = catalog.object(catalog.main)
    assert main is not None, "the main object is registered"
    constructor = main.constructor or Function("", TypeRef(OBJECT, main.name))
    given = _flags(queue, constructor, catalog, options, command, lenient)
    first, steps, obj = Step(constructor, main, given, command), list[Step](), main
    while queue:
        word = queue.pop(0)
        function = offered(obj).get(word) if obj else None
        if obj is None or function is None:
            raise UsageError(f'unknown command "{word}" for "{command}"', command)
        command = f"{command} {word}"
        given = _flags(queue, function, catalog, options, command, lenient)
        steps.append(Step(function, obj, given, command))
        obj = next_object(function.returns, catalog)
    return CallLine(first, tuple(steps), options)


def _flags(
    queue: list[str], function: Function, catalog: Catalog, options: Options, command: str, lenient: bool
) -> dict[str, Value]:
    """Take this function's flags off the front of `queue`; stop at the first word that is none."""
    arguments = {kebab(a.name): a for a in function.arguments if values.supported(a.type)}
    given: dict[str, Value] = {}
    for name, text in _take(queue, arguments, options, command):
        argument = arguments[name]
        try:
            value = values.parse(text, argument.type, catalog)
        except values.BadValue as error:
            raise UsageError(f'invalid argument "{text}" for "--{name}" flag: {error}', command) from None
        if isinstance(value, list) and argument.name in given:
            value = [*given[argument.name], *value]
        given[argument.name] = value
    missing = sorted(name for name, a in arguments.items() if a.required and a.name not in given)
    if missing and not lenient:
        quoted = ", ".join(f'"{name}"' for name in missing)
        raise UsageError(f"required flag(s) {quoted} not set", command)
    return given


def _take(
    queue: list[str], arguments: Mapping[str, Argument], options: Options, command: str
) -> Iterator[tuple[str, str]]:
    """Yield the (argument, text) pairs at the front of `queue`; note the program's own flags in `options`."""
    while queue and queue[0].startswith("-") and queue[0] != "-":
        word = queue.pop(0)
        if word == "--":
            return
        if not word.startswith("--"):
            _shorthands(word, queue, options, command)
            continue
        name, equals, text = word[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {word}", command)
        argument = arguments.get(name)
        option = next((o for o in OPTIONS if o.name == name), None)
        if argument is None and option is None:
            raise UsageError(f"unknown flag: --{name}", command)
        bare = argument.type.kind == BOOLEAN if argument else not (option and option.takes_value)
        if not equals and bare:
            text = "true"
        elif not equals:
            if not queue:
                raise UsageError(f"flag needs an argument: --{name}", command)
            text = queue.pop(0)
        if argument:
            yield name, text
        elif text != "false":
            options.given.setdefault(name, []).append(text)


def _shorthands(word: str, queue: list[str], options: Options, command: str) -> None:
    """`-j`, `-jo out`, `-oout`, `-o=out`: the program's own short flags."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = next((o for o in OPTIONS if o.short == letter), None)
        if option is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in {word}", command)
        text = "true"
        if option.takes_value:
            text, letters = letters.removeprefix("="), ""
            if not text:
                if not queue:
                    raise UsageError(f"flag needs an argument: '{letter}' in {word}", command)
                text = queue.pop(0)
        options.given.setdefault(option.name, []).append(text)
