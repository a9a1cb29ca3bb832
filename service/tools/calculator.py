"""Arithmetic that a model can ask for: numbers, operators and a few functions, evaluated from the syntax tree.

Nothing is executed but the operations listed here, and each is bounded, so no expression can take long or grow big.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from service.tools.base import ToolError
from service.tools.function import tool

MAX_CHARS = 300
MAX_BITS = 4096
"""Whole numbers may have about 1,200 digits."""

Number = int | float

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(math, name) for name in ("sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "exp")},
    **{name: getattr(math, name) for name in ("log", "log2", "log10", "floor", "ceil", "gcd", "hypot")},
    "abs": abs,
    "round": round,
    "min": min,
    "max": max,
    "factorial": math.factorial,
    "degrees": math.degrees,
    "radians": math.radians,
}
_CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}


@tool(idempotent=True, timeout=5.0)
def calculator(
    expression: Annotated[str, Field(description="Such as '(3 + 4) * 2 ^ 5' or 'sqrt(2) / 3'.")],
) -> str:
    """Work out an arithmetic expression exactly. Knows + - * / // % ^ and functions such as sqrt, log, round."""
    return str(evaluate(expression))


def evaluate(expression: str) -> Number:
    """The value of `expression`. Raises ToolError for anything that is not bounded arithmetic."""
    if len(expression) > MAX_CHARS:
        raise ToolError(f"The expression is too long: {len(expression)} characters; {MAX_CHARS} are allowed.")
    text = expression.strip().replace("^", "**").replace("×", "*").replace("÷", "/").replace("−", "-")
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, UnicodeError):
        raise ToolError(f"Not an arithmetic expression: {expression!r}.") from None
    except ZeroDivisionError:
        raise ToolError(f"Division by zero in {expression!r}.") from None
    except OverflowError:
        raise ToolError(f"The result of {expression!r} is too big.") from None
    except (ValueError, TypeError) as error:
        raise ToolError(f"{expression!r} has no value: {error}.") from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            raise ToolError("Only numbers are allowed.")
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(type(op), _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _call(name, [_value(each) for each in args])
        case _:
            raise ToolError(f"Not allowed in arithmetic: {ast.unparse(node)[:60]}.")


def _binary(op: type[ast.operator], left: Number, right: Number) -> Number:
    whole = isinstance(left, int) and isinstance(right, int)
    if op is ast.Pow and whole and abs(right) * max(int(left).bit_length(), 1) > MAX_BITS:
        raise OverflowError
    return _bounded(_BINARY[op](left, right))


def _call(name: str, arguments: list[Number]) -> Number:
    if name == "factorial" and arguments and arguments[0] > 300:
        raise OverflowError
    if name == "round" and len(arguments) == 2 and abs(arguments[1]) > 30:
        raise ValueError("round takes at most 30 digits")
    return _bounded(_FUNCTIONS[name](*arguments))


def _bounded(value: Any) -> Number:
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError
    if isinstance(value, float) and not math.isfinite(value):
        raise OverflowError
    return value
