"""Calculator, clock, function tools and argument checks."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from typing import Annotated, Any, Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from service.settings import Settings
from service.tools import arguments, create
from service.tools.base import Tool, ToolContext, ToolError
from service.tools.calculator import evaluate
from service.tools.clock import clock
from service.tools.function import tool
from service.tools.toolbox import Tools

pytestmark = pytest.mark.in_image

CONTEXT = ToolContext("run_1", "call_1", "0" * 64)


class TestCalculator:
    @pytest.mark.parametrize(
        ("expression", "value"),
        [
            ("1 + 2 * 3", 7),
            ("(1 + 2) * 3", 9),
            ("2 ^ 10", 1024),
            ("7 // 2", 3),
            ("-3 % 5", 2),
            ("10 ÷ 4 − 1", 1.5),
            ("sqrt(2) ** 2", pytest.approx(2)),
            ("max(1, 2, pi)", math.pi),
            ("factorial(20)", math.factorial(20)),
            ("round(2.345, 1)", 2.3),
        ],
    )
    def test_it_calculates(self, expression: str, value: float) -> None:
        """Operators, functions, constants, and signs people type."""
        assert evaluate(expression) == value

    @pytest.mark.parametrize(
        "expression",
        [
            "",
            "1 +",
            "__import__('os')",
            "().__class__",
            "[1, 2]",
            "'a' * 10**9",
            "lambda: 1",
            "1 if 1 else 2",
            "x",
            "True + 1",
            "1j",
            "f(x=1)",
            "sqrt(x=4)",
            "9 ** 9 ** 9",
            "2 ** 100000",
            "factorial(100000)",
            "1 / 0",
            "1e308 * 10",
            "sqrt(-1)",
            "(-8) ** 0.5",
            "1" * 301,
            "(" * 250,
            "\ud800",
            "gcd(1.5, 2)",
        ],
    )
    def test_everything_else_is_refused_for_the_model_to_read(self, expression: str) -> None:
        """Code, huge results and nonsense are one ToolError each: never an execution, never a crash."""
        with pytest.raises(ToolError):
            evaluate(expression)

    @settings(deadline=None)
    @given(st.text(alphabet="0123456789+-*/%^().e sqrtlogpimax,", max_size=60))
    def test_any_text_is_answered_quickly(self, expression: str) -> None:
        """Whatever arrives, the answer is a finite number or a ToolError."""
        try:
            value = evaluate(expression)
        except ToolError:
            return
        assert math.isfinite(value) if isinstance(value, float) else value.bit_length() <= 4096

    @settings(deadline=None)
    @given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9), st.sampled_from("+-*"))
    def test_whole_numbers_are_exact(self, a: int, b: int, sign: str) -> None:
        """It agrees with Python's own integers."""
        want = {"+": a + b, "-": a - b, "*": a * b}[sign]
        assert evaluate(f"({a}) {sign} ({b})") == want


class TestClock:
    def test_it_tells_the_time_of_a_zone(self) -> None:
        """Weekday, date, time and offset."""
        text = anyio.run(clock, {"zone": "UTC"}, CONTEXT)
        assert re.fullmatch(r"[A-Z][a-z]+day, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(UTC\+0000\)", text)

    @pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "", "Europe", "/etc/localtime"])
    def test_a_bad_zone_is_the_models_business(self, zone: str) -> None:
        """Unknown names, paths and folders are refused by name."""
        with pytest.raises(ToolError, match="No such time zone"):
            anyio.run(clock, {"zone": zone}, CONTEXT)


class Place(BaseModel):
    city: str
    lat: float = 0.0


class TestFunctions:
    def test_the_schema_comes_from_the_signature(self) -> None:
        """Types, defaults, literals and field descriptions; the context is not shown."""

        @tool(idempotent=True)
        def weather(
            city: Annotated[str, Field(description="Its name.")],
            context: ToolContext,
            unit: Literal["C", "F"] = "C",
        ) -> str:
            """Weather of a city."""
            return f"{city} {unit} {context.run_id}"

        assert isinstance(weather, Tool)
        assert (weather.name, weather.description, weather.idempotent) == ("weather", "Weather of a city.", True)
        assert weather.parameters["required"] == ["city"]
        assert weather.parameters["properties"]["city"] == {"description": "Its name.", "type": "string"}
        assert weather.parameters["properties"]["unit"]["enum"] == ["C", "F"]
        assert set(weather.parameters["properties"]) == {"city", "unit"}
        assert anyio.run(weather, {"city": "Rome"}, CONTEXT) == "Rome C run_1"

    def test_models_and_coroutines_work(self) -> None:
        """A pydantic parameter arrives as the model, a result that is no text as JSON."""

        @tool
        async def where(place: Place) -> dict[str, Any]:
            return {"city": place.city, "lat": place.lat}

        result = anyio.run(where, {"place": {"city": "Rome"}}, CONTEXT)
        assert json.loads(result) == {"city": "Rome", "lat": 0.0}

    def test_wrong_arguments_name_their_place(self) -> None:
        """The model reads which argument is wrong."""

        @tool
        def double(n: int) -> int:
            return 2 * n

        with pytest.raises(ToolError, match=r"^n: "):
            anyio.run(double, {"n": "many"}, CONTEXT)
        with pytest.raises(ToolError, match="m: Extra"):
            anyio.run(double, {"n": 1, "m": 2}, CONTEXT)

    def test_a_plain_function_does_not_block_the_loop(self) -> None:
        """It runs in a thread, and a cancelled call is left behind at once."""
        release = threading.Event()

        @tool
        def wait() -> str:
            release.wait(10)
            return "late"

        async def main() -> float:
            start = time.monotonic()
            with anyio.move_on_after(0.05):
                await wait({}, CONTEXT)
            release.set()
            return time.monotonic() - start

        assert anyio.run(main) < 5

    def test_a_parameter_without_a_type_is_refused_at_once(self) -> None:
        """When the tool is made, not when a model calls it."""
        with pytest.raises(TypeError, match="'x' of the tool 'bad' has no annotation"):

            @tool
            def bad(x):  # type: ignore[no-untyped-def]
                return x

        with pytest.raises(TypeError, match=r"named parameters"):

            @tool
            def worse(*x: int) -> int:
                return sum(x)


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
    "additionalProperties": False,
}


class TestArguments:
    def test_good_arguments_pass(self) -> None:
        """As the object that they are; nothing at all is an empty object."""
        assert arguments.parse('{"city": "Rome", "days": 2}', SCHEMA) == {"city": "Rome", "days": 2}
        assert arguments.parse("", {"type": "object"}) == {}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('{"city": "Rome"', "not valid JSON"),
            ("[]", "must be a JSON object, not list"),
            ('"x"', "must be a JSON object, not str"),
            ("null", "must be a JSON object"),
            ("{}", "'city' is a required property"),
            ('{"city": 5}', "city: 5 is not of type 'string'"),
            ('{"city": "x", "days": 0}', "days: 0 is less than the minimum of 1"),
            ('{"city": "x", "mood": 1}', "'mood' was unexpected"),
            ('{"city": NaN}', "NaN is no JSON number"),
            ("[" * 100_000, "not valid JSON"),
            ('{"city": "' + "x" * 300_000 + '"}', "too long"),
        ],
    )
    def test_bad_arguments_say_what_is_wrong(self, text: str, said: str) -> None:
        """In one sentence that fits into a message to the model."""
        with pytest.raises(ToolError) as error:
            arguments.parse(text, SCHEMA)
        assert said in str(error.value)
        assert len(str(error.value)) < 500

    def test_a_broken_schema_of_a_foreign_tool_checks_nothing(self) -> None:
        """An MCP server's mistake must not stop a run."""
        assert arguments.parse('{"a": 1}', {"type": "objekt"}) == {"a": 1}


class TestToolbox:
    def test_the_settings_choose(self) -> None:
        """All by default; only the named ones otherwise."""
        assert {"calculator", "clock"} <= set(create(Settings()).names())
        only = create(Settings(tools=("clock",)))
        assert only.names() == ("clock",)
        assert only.get("calculator") is None

    def test_names_are_unique_and_plain(self) -> None:
        """Two of one name, or a name no model may use, are refused when the toolbox is made."""
        with pytest.raises(ValueError, match="one name: 'clock'"):
            Tools([clock, clock])
        with pytest.raises(ValueError, match="Bad tool name"):
            Tools([tool(name="a b")(lambda: "x")])
