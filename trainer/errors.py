"""What can go wrong in training, as a tree; each kind has an exit status of its own (docs/trainer.md lists them).

    TrainerError                1   anything below
      ConfigError               2   a value that cannot be; all of them at once
      DataError                 3   rows that cannot be trained on
      DoesNotFit                4   the plan needs more memory than the card has
      NoGpu                     5   a card was asked for and none is there
      HubTokenMissing           6   a gated model and no token, or a token without access
      HubUnreachable            7   the hub cannot be reached and the model is not in the cache
      UnsupportedModel          8   an architecture the loss head or the adapters do not know
      VocabularyMismatch        9   tokenizer and model disagree about the number of tokens
      CheckpointError          10   no checkpoint of the run can be read
      RunChanged               11   data, configuration or versions differ from the checkpoint's
      DiskFull                 12   a checkpoint could not be written; the previous one is intact
      Diverged                 13   the loss stayed broken after rolling back
      OutOfMemory              14   not even one sequence fits
      RunBusy                  15   another process is training this run
      Stopped                  75   asked to stop; saved, and the same command goes on

A message reads `Problem, value, place. What to do.` in one line.
"""

from __future__ import annotations

from typing import ClassVar


class TrainerError(Exception):
    """Something the person can act on; `str()` is the line to show."""

    exit_code: ClassVar[int] = 1


class ConfigError(TrainerError):
    """The configuration cannot be; `problems` holds one line for each value that is wrong."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DataError(TrainerError):
    """Rows that cannot be trained on; `problems` holds `line N: ...` for up to 20 of them."""

    exit_code = 3

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DoesNotFit(TrainerError):
    """The plan needs more memory than there is."""

    exit_code = 4


class NoGpu(TrainerError):
    """A card was asked for and none is there."""

    exit_code = 5


class HubTokenMissing(TrainerError):
    """The model is gated, and there is no token or the token has no access."""

    exit_code = 6


class HubUnreachable(TrainerError):
    """The hub does not answer and the cache lacks the model."""

    exit_code = 7


class UnsupportedModel(TrainerError):
    """An architecture that our loss head or the adapters do not know."""

    exit_code = 8


class VocabularyMismatch(TrainerError):
    """The tokenizer produces ids that the model has no row for."""

    exit_code = 9


class CheckpointError(TrainerError):
    """No checkpoint of the run can be read."""

    exit_code = 10


class RunChanged(TrainerError):
    """Resuming would not continue the same run; the message holds the differences."""

    exit_code = 11


class DiskFull(TrainerError):
    """A checkpoint could not be written; the previous one is intact."""

    exit_code = 12


class Diverged(TrainerError):
    """The loss stayed broken after rolling back as often as allowed."""

    exit_code = 13


class OutOfMemory(TrainerError):
    """Not even a micro-batch of one sequence fits."""

    exit_code = 14


class RunBusy(TrainerError):
    """Another process is training this run."""

    exit_code = 15


class Stopped(TrainerError):
    """SIGTERM or SIGINT came; the state is saved and the same command goes on (75 is EX_TEMPFAIL)."""

    exit_code = 75
