"""The module's process imports dagger with its checks put off; they must be there all the same."""

import inspect
import json
import runpy
import subprocess
import sys
from typing import Self

import beartype
import pytest
from beartype import BeartypeConf

from ci.engine.module.process import CHILD

CHECKED = BeartypeConf(violation_param_type=TypeError)
checks_when_used = runpy.run_path(str(CHILD))["checks_when_used"]


def made() -> type:
    """A class like those of Dagger's client."""
    with checks_when_used():

        @beartype.beartype(conf=CHECKED)
        class Box:
            def put(self, number: int) -> Self:
                """Put a number in."""
                self.number = number
                return self

            async def weigh(self, unit: str) -> str:
                return f"{self.number} {unit}"

    return Box


def test_a_method_called_first_is_checked():
    box = made()()
    with pytest.raises(TypeError, match="number"):
        box.put("heavy")
    assert box.put(2).number == 2


def test_a_bound_method_is_checked_each_time():
    put = made()().put
    assert put(1).number == 1
    for _ in range(2):
        with pytest.raises(TypeError, match="number"):
            put(None)


@pytest.mark.anyio
async def test_a_coroutine_stays_one():
    kind = made()
    assert inspect.iscoroutinefunction(kind.weigh)
    with pytest.raises(TypeError, match="unit"):
        await kind().weigh(1)
    assert await kind().put(3).weigh("kg") == "3 kg"


def test_a_method_looked_at_is_the_method_itself():
    kind = made()
    assert list(inspect.signature(kind.put).parameters) == ["self", "number"]
    assert kind.put.__doc__ == "Put a number in."


def test_a_class_that_inherits_has_the_checks_and_its_own_methods():
    class Crate(made()):
        def put(self, number):
            return super().put(number)

    assert Crate().put(1).number == 1
    with pytest.raises(TypeError, match="number"):
        Crate().put("heavy")


def test_functions_are_checked_at_once_and_the_decorator_is_given_back():
    before = beartype.beartype
    with checks_when_used():

        @beartype.beartype
        def one(number: int) -> int:
            return number

        @beartype.beartype(conf=CHECKED)
        def two(number: int) -> int:
            return number

    assert beartype.beartype is before
    for function in (one, two):
        with pytest.raises(Exception, match="number"):
            function("x")


WRONG = """
import json, runpy, sys
child = runpy.run_path(sys.argv[1])
if sys.argv[2] == "deferred":
    with child["checks_when_used"]():
        import dagger
    assert type(vars(dagger.Container)["with_user"]).__name__ == "_Unchecked", "checks were made at once"
else:
    import dagger
calls = {
    "an argument": lambda: dagger.dag.container().with_exec("a string"),
    "an option": lambda: dagger.dag.container().with_exec(["a"], expect=1),
    "an object": lambda: dagger.dag.directory().with_file("a", dagger.dag.container()),
    "an input": lambda: dagger.BuildArg(name="a", value=1),
    "too few": lambda: dagger.dag.container().with_workdir(),
}
found = {}
for name, call in calls.items():
    try:
        call()
        found[name] = None
    except Exception as error:
        # the rest names an object's address, and a class by what it was when the check was made
        found[name] = [type(error).__name__, str(error).partition("=<")[0]]
print(json.dumps(found))
"""


def test_dagger_s_own_checks_are_the_same():
    def run(how: str) -> dict[str, list[str] | None]:
        done = subprocess.run([sys.executable, "-c", WRONG, str(CHILD), how], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    plain, deferred = run("plain"), run("deferred")
    assert deferred == plain
    assert all(plain.values()), f"something wrong is let through: {plain}"
