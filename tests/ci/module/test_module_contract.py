"""What the module offers, as an engine sees it: names, defaults, checks, caching, and what is uploaded."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping

import pytest

from ci.engine.module.session import registered
from ci.engine.module.source import find
from ci.engine.module.types import Function
from tests.ci.module.conftest import ROOT

IMAGES = {"build_builder", "build_runtime", "build_dev", "build_test", "build_training", "build_ops"}
OTHERS = {"images", "test", "lint", "smoke", "train", "publish", "tool", "sbom", "scan", "sign", "verify"}

Functions = Mapping[str, Function]


@pytest.fixture(scope="module")
def functions() -> Functions:
    """The functions of the module as it registers them."""
    types = registered(find(str(ROOT)), lambda _: None)
    return {name: f for name, f in types.objects["AgentLoop"].functions.items() if not f.is_field}


def test_every_function_of_the_system_is_there(functions: Functions) -> None:
    """The names that the README, the workflows and the stack call."""
    assert set(functions) == IMAGES | OTHERS


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_an_image_is_a_container_to_chain_on(functions: Functions, name: str) -> None:
    """`export-image`, `as-tarball` and `publish` follow any of them."""
    assert functions[name].returns.name == "Container"


@pytest.mark.parametrize("name", sorted(IMAGES | OTHERS - {"tool", "scan", "sign", "verify", "publish"}))
def test_it_can_be_called_with_no_argument_at_all(functions: Functions, name: str) -> None:
    """`dagger call build-runtime`, `dagger call test` are right as they stand: every argument has a default."""
    missing = [a.name for a in functions[name].arguments if a.required and not a.default_path]
    assert missing == []


def test_the_checks_are_the_suite_the_linter_and_the_smoke_test(functions: Functions) -> None:
    """`dagger check` runs these."""
    assert {name for name, f in functions.items() if f.check} == {"test", "lint", "smoke"}


def test_what_has_effects_is_never_answered_from_memory(functions: Functions) -> None:
    """Training and publishing happen at each call."""
    assert {name for name, f in functions.items() if f.cache.lower() == "never"} == {"train", "publish"}


def test_secrets_are_typed_as_secrets(functions: Functions) -> None:
    """No token, password or key travels as text."""
    wanted = {("train", "hub_token"), ("publish", "password"), ("sign", "key"), ("sign", "password")}
    for name, argument in wanted:
        assert functions[name].argument(argument).type.innermost.name == "Secret"
    texts = {
        (name, a.name)
        for name, f in functions.items()
        for a in f.arguments
        if a.type.innermost.name != "Secret" and any(w in a.name for w in ("token", "password", "secret"))
    }
    assert texts == set()


def test_gemma_is_what_training_trains_unless_told_otherwise(functions: Functions) -> None:
    """`dagger call train` and `dagger call train --model gemma-2b` are the same."""
    assert json.loads(functions["train"].argument("model").default or "") == "gemma-2b"


def test_sources_are_allow_lists(functions: Functions) -> None:
    """Everything is ignored but what is re-admitted by name, so nothing else of the repository is uploaded."""
    sources = [a for f in functions.values() for a in f.arguments if a.default_path]
    assert len(sources) == len([f for f in functions.values() if any(a.name == "source" for a in f.arguments)])
    for argument in sources:
        assert argument.default_path == "/"
        assert argument.ignore[0] == "**"
        assert "**/__pycache__" in argument.ignore
        assert argument.default is None  # an engine refuses a default beside a default path


def test_an_image_s_source_holds_its_own_package_and_sets_alone(functions: Functions) -> None:
    """An edit of the trainer does not even reach the service's build."""
    admitted = {p for p in functions["build_runtime"].argument("source").ignore if p.startswith("!")}
    assert admitted == {"!service/**", "!requirements/service.txt", "!requirements/uv.txt"}


def test_everything_says_what_it_is_for(functions: Functions) -> None:
    """Every function and every argument has a description."""
    assert [name for name, f in functions.items() if not f.description] == []
    assert [(n, a.name) for n, f in functions.items() for a in f.arguments if not a.description] == []


def test_names_hold_no_digits(functions: Functions) -> None:
    """An engine splits `h100` into `h-100`."""
    names = [*functions, *(a.name for f in functions.values() for a in f.arguments)]
    assert [name for name in names if any(c.isdigit() for c in name)] == []


def test_functions_are_thin() -> None:
    """A method of the module's class is its docstring and at most three statements; the work is in plain functions."""
    tree = ast.parse((ROOT / "ci/src/agent_loop_ci/main.py").read_text())
    methods = [
        node
        for top in tree.body
        if isinstance(top, ast.ClassDef)
        for node in top.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(methods) > 15
    long = {m.name for m in methods if len([s for s in m.body if not isinstance(s, ast.Expr)]) > 3}
    assert long == set()


def test_the_module_s_project_is_as_a_real_engine_reads_it() -> None:
    """The engine takes the base image from the literal `>=3.13` and runs the client version that was tried."""
    import tomllib

    project = tomllib.loads((ROOT / "ci/pyproject.toml").read_text())["project"]
    module = json.loads((ROOT / "dagger.json").read_text())
    assert project["requires-python"] == ">=3.13"
    assert project["dependencies"] == ["dagger-io==" + module["engineVersion"].removeprefix("v")]
    assert project["entry-points"]["dagger.mod"]["main_object"] == "agent_loop_ci:AgentLoop"
    assert (module["name"], module["source"]) == ("agent-loop", "ci")
