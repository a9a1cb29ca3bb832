"""Signals that end a command of ours: who takes them inside, and that whoever had them gets them back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from ci.engine.call.cli import told
from ci.engine.ending import SIGNALS, on_end


@pytest.fixture(params=SIGNALS)
def number(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """One of the signals, with this process's own handlers put back afterwards."""
    before = signal.getsignal(request.param)
    signal.signal(request.param, signal.SIG_DFL)
    yield request.param
    signal.signal(request.param, before)


def test_the_handler_takes_them_inside_only(number: signal.Signals) -> None:
    came: list[int] = []
    with on_end(lambda which, _: came.append(which)):
        os.kill(os.getpid(), number)
    assert came == [number]
    assert signal.getsignal(number) == signal.SIG_DFL


def test_they_come_back_after_a_failure(number: signal.Signals) -> None:
    with pytest.raises(ValueError, match="no"), on_end():
        raise ValueError("no")
    assert signal.getsignal(number) == signal.SIG_DFL


def test_what_is_ignored_stays_so(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with on_end():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == signal.SIG_IGN


def test_a_command_ends_as_by_ctrl_c(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        os.kill(os.getpid(), number)
        threading.Event().wait(10)
        return 0

    assert told(work) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert signal.getsignal(number) == signal.SIG_DFL
