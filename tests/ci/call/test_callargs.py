"""From words to a call."""

import contextlib
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.engine.call.args import CallLine, parse
from ci.engine.call.values import Address, BadValue
from ci.engine.call.values import parse as parse_value
from ci.engine.module.errors import UsageError
from ci.engine.module.types import Argument, EnumType, Function, ObjectType, TypeRef

STRING, INTEGER, BOOLEAN, FLOAT = (TypeRef(kind) for kind in ("STRING", "INTEGER", "BOOLEAN", "FLOAT"))
MODE = TypeRef("ENUM", "Mode")


def listed(ref: TypeRef) -> TypeRef:
    return TypeRef("LIST", element=ref)


def function(name: str, returns: TypeRef, *arguments: Argument) -> Function:
    return Function(name, returns, arguments=arguments)


REPORT = ObjectType(
    "Report", functions={f.name: f for f in [function("headline", STRING, Argument("prefix", STRING, default='"="'))]}
)
MAIN = ObjectType(
    "Probe",
    functions={
        f.name: f
        for f in [
            function("hello", STRING),
            function(
                "many",
                STRING,
                Argument("zeta", STRING),
                Argument("alpha", INTEGER),
                Argument("beta", BOOLEAN, default="false"),
            ),
            function("tags", listed(STRING), Argument("items", listed(STRING))),
            function("read_dir", STRING, Argument("source", TypeRef("OBJECT", "Directory"))),
            function("take_report", STRING, Argument("report", TypeRef("OBJECT", "Report"))),
            function("make_report", TypeRef("OBJECT", "Report")),
            function("must_flag", BOOLEAN, Argument("on", BOOLEAN)),
            function("pick", MODE, Argument("mode", MODE, default='"FAST"')),
            function("save", STRING, Argument("output", STRING)),
        ]
    },
    constructor=function("", TypeRef("OBJECT", "Probe"), Argument("greeting", STRING, default='"hello"')),
)


@dataclass(frozen=True)
class Types:
    """A catalog of two objects and an enum."""

    main: str = "Probe"
    objects: dict[str, ObjectType] = field(default_factory=lambda: {"Probe": MAIN, "Report": REPORT})

    def object(self, name: str) -> ObjectType | None:
        return self.objects.get(name)

    def enum(self, name: str) -> EnumType:
        return EnumType(name, members=("FAST", "VERY_SLOW"))


def line(*words: str) -> CallLine:
    return parse(words, Types())


class TestChains:
    """Which functions the words name, with which arguments."""

    def test_a_chain_follows_what_each_function_returns(self) -> None:
        """A word after a function that gives an object is a function of that object."""
        parsed = line("--greeting", "hey", "make-report", "headline", "--prefix", "#")
        assert parsed.constructor.given == {"greeting": "hey"}
        assert [(s.function.name, dict(s.given), s.command) for s in parsed.steps] == [
            ("make_report", {}, "dagger call make-report"),
            ("headline", {"prefix": "#"}, "dagger call make-report headline"),
        ]

    def test_the_programs_own_flags_stand_anywhere(self) -> None:
        """`-j` and `-o` are understood before, between and behind functions."""
        for words in (
            ("-j", "-o", "x", "hello"),
            ("hello", "-jo", "x"),
            ("hello", "--json", "--output=x"),
            ("-j", "hello", "-ox"),
        ):
            options = line(*words).options
            assert options.has("json"), words
            assert options.last("output") == "x", words

    def test_a_functions_flag_wins_over_the_programs(self) -> None:
        """An argument called `output` is the function's, while `-o` stays the program's."""
        parsed = line("save", "--output", "a", "-o", "b")
        assert parsed.last.given == {"output": "a"}
        assert parsed.options.last("output") == "b"

    def test_objects_are_named_and_not_loaded(self) -> None:
        """A folder's path becomes an address; nothing is read, so it need not exist."""
        assert line("read-dir", "--source", "nope").last.given == {"source": Address("Directory", "nope")}

    def test_help_needs_no_arguments(self) -> None:
        """Asking for help is no call, so nothing is missing; `--help` as a value is a value."""
        assert line("many", "--help").options.has("help")
        with pytest.raises(UsageError, match='required flag\\(s\\) "alpha" not set'):
            line("many", "--zeta", "--help")


class TestMistakes:
    """Each mistake is told in Dagger's words about the function that it belongs to."""

    @pytest.mark.parametrize(
        ("words", "message", "command"),
        [
            ("no-such-thing", 'unknown command "no-such-thing" for "dagger call"', ""),
            ("make_report", 'unknown command "make_report" for "dagger call"', ""),
            ("take-report --report x", 'unknown command "take-report" for "dagger call"', ""),
            ("hello --greeting hey", "unknown flag: --greeting", " hello"),
            ("hello there", 'unknown command "there" for "dagger call hello"', " hello"),
            ("many --beta", 'required flag(s) "alpha", "zeta" not set', " many"),
            ("many word", 'required flag(s) "alpha", "zeta" not set', " many"),
            ("many --zeta", "flag needs an argument: --zeta", " many"),
            ("hello -o", "flag needs an argument: 'o' in -o", " hello"),
            ("hello -x", "unknown shorthand flag: 'x' in -x", " hello"),
            ("hello --=1", "bad flag syntax: --=1", " hello"),
            ("must-flag --on false", 'unknown command "false" for "dagger call must-flag"', " must-flag"),
            (
                "pick --mode very-slow",
                'invalid argument "very-slow" for "--mode" flag: value should be one of FAST,VERY_SLOW',
                " pick",
            ),
            (
                "many --alpha x",
                'invalid argument "x" for "--alpha" flag: strconv.ParseInt: parsing "x": invalid syntax',
                " many",
            ),
        ],
    )
    def test_it_is_told(self, words: str, message: str, command: str) -> None:
        """The message is the recorded one, and the hint names the help page."""
        with pytest.raises(UsageError) as caught:
            line(*words.split())
        assert str(caught.value) == message
        assert caught.value.text.endswith(f"\nRun 'dagger call{command} --help' for usage.")
        assert caught.value.status == 1


class TestValues:
    """Texts of flags."""

    @pytest.mark.parametrize(
        ("text", "ref", "value"),
        [
            ("0x10", INTEGER, 16),
            ("-2", INTEGER, -2),
            ("017", INTEGER, 15),
            ("1e-3", FLOAT, 0.001),
            ("T", BOOLEAN, True),
            ("fast", MODE, "FAST"),
            ("a,b", listed(STRING), ["a", "b"]),
            ('"a,b",c', listed(STRING), ["a,b", "c"]),
            ('"a ""b""",c', listed(STRING), ['a "b"', "c"]),
            ("", listed(STRING), []),
            ("3,4", listed(INTEGER), [3, 4]),
            ("FAST,very_slow", listed(MODE), ["FAST", "VERY_SLOW"]),
        ],
    )
    def test_it_is_read(self, text: str, ref: TypeRef, value: object) -> None:
        """Numbers, truth, names and lists are read as Dagger reads them."""
        assert parse_value(text, ref, Types()) == value

    @pytest.mark.parametrize(
        ("text", "ref", "message"),
        [
            ("1.5", INTEGER, 'strconv.ParseInt: parsing "1.5": invalid syntax'),
            ("9" * 20, INTEGER, f'strconv.ParseInt: parsing "{"9" * 20}": value out of range'),
            ("half", FLOAT, 'strconv.ParseFloat: parsing "half": invalid syntax'),
            ("yes", BOOLEAN, 'strconv.ParseBool: parsing "yes": invalid syntax'),
            ("", listed(INTEGER), 'strconv.Atoi: parsing "": invalid syntax'),
            ('a"b', listed(STRING), 'parse error on line 1, column 2: bare " in non-quoted field'),
        ],
    )
    def test_it_is_refused(self, text: str, ref: TypeRef, message: str) -> None:
        """What Go's parsers refuse is refused with their words."""
        with pytest.raises(BadValue) as caught:
            parse_value(text, ref, Types())
        assert str(caught.value) == message

    @given(st.integers(-(2**63), 2**63 - 1))
    def test_every_whole_number_comes_back(self, number: int) -> None:
        """Decimal and hexadecimal texts of a 64-bit number give the number."""
        assert parse_value(str(number), INTEGER, Types()) == number
        assert parse_value(hex(number), INTEGER, Types()) == number

    @given(
        st.lists(
            st.text(alphabet=st.characters(exclude_characters='\n\r"', exclude_categories=["Cs", "Cc"]), min_size=1),
            min_size=1,
        )
    )
    def test_every_list_comes_back_from_quotes(self, words: list[str]) -> None:
        """Members in CSV quotes keep their commas."""
        text = ",".join(f'"{word}"' for word in words)
        assert parse_value(text, listed(STRING), Types()) == words

    @given(st.text(max_size=30))
    def test_no_text_breaks_the_parser(self, text: str) -> None:
        """Whatever is typed, a value comes back or the one complaint does."""
        for ref in (INTEGER, FLOAT, BOOLEAN, MODE, listed(STRING), listed(INTEGER), listed(MODE)):
            complaint = ""
            with contextlib.suppress(BadValue):
                complaint = type(parse_value(text, ref, Types())).__name__
            assert complaint in (
                "",
                {"INTEGER": "int", "FLOAT": "float", "BOOLEAN": "bool", "ENUM": "str"}.get(ref.kind, "list"),
            )


@given(
    st.lists(
        st.sampled_from(
            ["hello", "many", "--alpha", "3", "--zeta", "z", "-j", "-o", "x", "--help", "--", "make-report", "--on=x"]
        )
    )
)
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    """No order of known words does anything but parse or raise a usage error with a hint."""
    refused = ""
    try:
        refused = parse(words, Types()).last.command
    except UsageError as error:
        refused = error.command
    assert refused.startswith("dagger call")
