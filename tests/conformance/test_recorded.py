"""The recorded answers of a real Dagger engine, on whichever session is in the environment, else on ours.

    agent-loop run pytest tests/conformance        dagger run pytest tests/conformance

Cases that build nothing run always; of the others a sample of tier 1, the rest is `slow`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ci.engine import Options, Session
from tests.conformance.recorded import Case, Endpoint, cases, differing, play

SAMPLE = {
    "exec-prints-to-stdout",
    "exec-combined-output-keeps-both-streams",
    "exec-fails-in-the-middle-of-a-chain",
    "exec-expect-any-failing",
    "exec-program-not-found",
    "exec-same-exec-runs-once",
    "cache-keeps-files-in-the-next-session",
    "cache-owner-and-mode",
    "docker-build-target-and-args",
    "export-from-a-container",
    "mounted-directory-writes-reach-the-next-exec",
    "new-file-owner",
    "secret-scrubbed-in-a-failing-exec",
    "secret-mounted-mode-and-owner",
    "tarball-then-import",
    "user-number-without-passwd-entry",
}
DIFFERS = differing()


@contextmanager
def ours(workdir: Path, env: Mapping[str, str]) -> Iterator[Endpoint]:
    """A session of this engine, in this process, on base images that were made here."""
    import os

    with Session(workdir=workdir, env={**os.environ, **env}, options=Options(bases="local")) as session:
        yield Endpoint(session.port, session.token)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One session for all cases that do not ask for their own."""
    given = Endpoint.from_environment()
    if given is not None:
        yield given
        return
    with ours(tmp_path_factory.mktemp("session"), {}) as endpoint:
        yield endpoint


def parameter(case: Case) -> object:
    marks: list[pytest.MarkDecorator] = []
    if case.builds:
        marks.append(pytest.mark.containers)
        if case.name not in SAMPLE:
            marks.append(pytest.mark.slow)
    if case.name in DIFFERS and Endpoint.from_environment() is None:
        marks.append(pytest.mark.xfail(reason=DIFFERS[case.name], strict=True))
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", [parameter(c) for c in cases() if c.embedded])
def test_answers_as_recorded(case: Case, shared: Endpoint, tmp_path: Path) -> None:
    """Every step of the case is answered as the real engine answered it."""
    elsewhere = Endpoint.from_environment() is not None
    if elsewhere and case.own_session:
        pytest.skip("the case needs a session of its own, and one was given in the environment")
    wrong = play(case, tmp_path, None if case.own_session else shared, ours)
    assert not wrong, "\n".join(wrong)


def test_the_list_of_differences_names_recorded_cases() -> None:
    """docs/engine.md excuses nothing that is not a case, and no more than 15 % of tier 2 and none of tier 1."""
    known = {c.name: c for c in cases() if c.embedded}
    assert set(DIFFERS) <= set(known)
    corners = [c for c in known.values() if c.tier == 2]
    assert len([n for n in DIFFERS if known[n].tier == 2]) <= 0.15 * len(corners)
