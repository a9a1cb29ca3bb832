"""The policies: what each asks of an image, and what it says when it does not hold. Pure functions of a plan.

Adding one is a function below: `(image, settings) -> the complaints`, registered under its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .graph import MASK, PlanGraph, Step
from .image import Image, command_text, manager_of
from .settings import Settings
from .text import words

Rule = Callable[[Image, Settings], Iterable[str]]


@dataclass(frozen=True)
class Policy:
    """A rule with its name and its sentence."""

    name: str
    says: str
    rule: Rule
    images_only: bool = True
    """False: holds for whatever a function makes, not only for containers."""


RULES: dict[str, Policy] = {}


def _policy(name: str, says: str, *, images_only: bool = True) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES[name] = Policy(name, says, rule, images_only)
        return rule

    return register


def _beneath(image: Image) -> list[Step]:
    """All steps that an image rests on, in order."""
    return [image.plan.steps[n] for n in sorted(image.plan.beneath(image.number))]


@_policy("pinned-base", "every base image is named by digest", images_only=False)
def pinned_base(image: Image, settings: Settings) -> Iterable[str]:
    for step in _beneath(image):
        address = str(step.args.get("address", ""))
        if step.field == "from" and not re.search(r"@sha256:[0-9a-f]{64}$", address):
            yield f"base image without digest, {address}. Write {address.partition('@')[0]}@sha256:…"


@_policy("numeric-user", "an image runs as a numeric user that is not root")
def numeric_user(image: Image, settings: Settings) -> Iterable[str]:
    if not re.fullmatch(r"\d+(:\d+)?", image.user):
        what = f"user {image.user}" if image.user else "no user"
        yield f"runs as {what}. Set a number, such as with_user('10001:10001'): orchestrators check nothing else"
    elif int(image.user.partition(":")[0]) == 0:
        yield "runs as root. Set a number above 0, such as with_user('10001:10001')"


@_policy("no-secret", "no secret stands in variables, arguments, labels or files", images_only=False)
def no_secret(image: Image, settings: Settings) -> Iterable[str]:
    for step in _beneath(image):
        if step.field in ("setSecret", "plaintext"):
            continue
        found = [name for name, value in step.args.items() if MASK in str(value)]
        if found:
            yield (
                f"a secret's plaintext in '{words(step)}'. Use with_secret_variable or with_mounted_secret: "
                "they leave nothing behind"
            )


@_policy("no-cache", "no package manager's cache is left in an image")
def no_cache(image: Image, settings: Settings) -> Iterable[str]:
    for install in image.installs():
        for folder in image.leftovers(install):
            yield f"{folder} stays in the image after '{_short(install.text)}'. Mount a cache volume there"


@_policy("dependencies-first", "steps that install dependencies do not rest on the sources")
def dependencies_first(image: Image, settings: Settings) -> Iterable[str]:
    for step in _beneath(image):
        manager = manager_of(step) if step.field == "withExec" else ""
        text = command_text(step)
        if not manager or "--no-deps" in text or re.search(r"(^|\s)(-e\s+)?\.(\s|$)", text):
            continue  # installing the project itself must see it
        before = image.plan.chain(step.on) if step.on is not None else []
        for copied in before:
            if copied.field in ("withDirectory", "withMountedDirectory") and _is_sources(image.plan, copied):
                yield (
                    f"'{_short(text)}' rests on the sources ('{words(copied)}'), so every edit runs it again. "
                    "Copy the locked requirements first, the sources after"
                )
                break


def _is_sources(plan: PlanGraph, copied: Step) -> bool:
    """Whether a copied folder is one of the host's, not narrowed to single files."""
    numbers = [n for name, n in copied.refs() if name in ("source", "directory")]
    if not numbers or copied.args.get("include"):
        return False
    chain = plan.chain(numbers[0])
    host = [s.field for s in chain[:2]] == ["host", "directory"]
    return host and all(s.field in ("host", "directory", "filter", "withoutFile", "withoutDirectory") for s in chain)


COMPILERS = re.compile(
    r"(?<![\w./-])(gcc|g\+\+|clang|make|cmake|build-essential|rustc|cargo|golang(-go)?|lib[\w.+]+-dev|python3?-dev)(?![\w-])"
)
DEVELOPMENT = re.compile(
    r"--(all-groups|dev)(?!\S)|--(group|extra|only-group)[ =](dev|test)\b|requirements[-_/.](dev|test)\b"
)


@_policy("lean-runtime", "a runtime image has no uv, no compiler and no development group")
def lean_runtime(image: Image, settings: Settings) -> Iterable[str]:
    if not settings.is_runtime(image.function):
        return
    for install in image.installs():
        compiler = COMPILERS.search(install.text) if install.manager in ("apt", "apk") else None
        if compiler:
            yield f"{compiler[1]} is installed in '{_short(install.text)}'. Install it in the builder"
        if install.manager == "uv":
            yield f"uv is used in '{_short(install.text)}'. Run it in the builder and copy the environment"
    for step in image.since_base:
        path = str(step.args.get("path", ""))
        if step.field == "withFile" and re.search(r"(^|/)uvx?$", path):
            yield f"uv is copied to {path}. Keep it in the builder"
    for step in _beneath(image):
        if step.field == "withExec" and manager_of(step) and (found := DEVELOPMENT.search(command_text(step))):
            yield f"development dependencies by '{found[0]}' in '{_short(command_text(step))}'. Leave them out"


@_policy("torch-in-training", "torch is installed for training images only")
def torch_in_training(image: Image, settings: Settings) -> Iterable[str]:
    if settings.is_training(image.function):
        return
    for step in _beneath(image):
        text = command_text(step) if step.field == "withExec" and manager_of(step) else ""
        if re.search(r"(?<![\w./-])torch(?![\w-])", text) or re.search(
            r"requirements[-_/.](train(er|ing)?|torch)\b", text
        ):
            yield f"torch in '{_short(text)}'. It belongs to {', '.join(settings.training) or 'training images'}"
        if step.field in ("file", "withFile", "withMountedFile"):
            path = str(step.args.get("path", ""))
            if re.search(r"requirements[-_/.](train(er|ing)?|torch)\b", path):
                yield f"{path} is used, which holds torch. It belongs to {', '.join(settings.training) or 'training'}"


@_policy("health-check", "an image that starts something says how it is asked for health, without a shell")
def health_check(image: Image, settings: Settings) -> Iterable[str]:
    if image.entrypoint is None and not settings.is_runtime(image.function):
        return
    check = image.healthcheck
    if check is None:
        yield "no health check. Add with_docker_healthcheck([…]) with the image's own interpreter"
    elif check.get("shell") or _is_shell(list(check.get("args") or ())):
        yield "the health check needs a shell. Give it as a program with arguments"


@_policy("exec-entrypoint", "an entrypoint is a program, not a shell's command line")
def exec_entrypoint(image: Image, settings: Settings) -> Iterable[str]:
    if image.entrypoint and _is_shell(image.entrypoint):
        yield f"entrypoint is a shell, {' '.join(image.entrypoint)}. Name the program: a shell swallows signals"


@_policy("labels", "an image that starts something carries its labels")
def labels(image: Image, settings: Settings) -> Iterable[str]:
    if image.entrypoint is None and not settings.is_runtime(image.function):
        return
    missing = [name for name in settings.labels if not image.labels.get(name)]
    if missing:
        yield f"labels missing: {', '.join(missing)}. Set them last, with with_label"


def _is_shell(args: list[str]) -> bool:
    return len(args) > 1 and args[0].rsplit("/", 1)[-1] in ("sh", "bash", "dash", "ash") and args[1].startswith("-")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 70 else text[:69] + "…"
