"""What can go wrong on the way from a run to a served model; each kind has an exit status of its own.

TrainerError                    see trainer/errors.py (1 to 15, 75)
  ExportError             20    the run, the base or the target folder cannot be used as they are
    UnsupportedExport     21    an architecture or adapter that our writer does not know
    TokenizerUnusable     22    the base's tokenizer files cannot be said in GGUF
    VerificationFailed    23    the exported file does not answer as the trained model does
  DeployError             24    the model could not be made the served one; the previous one still is
  RegistryError           25    the model registry cannot be used
"""

from __future__ import annotations

from trainer.errors import TrainerError


class ExportError(TrainerError):
    """The run, the base model or the target folder cannot be used as they are."""

    exit_code = 20


class UnsupportedExport(ExportError):
    """An architecture or a kind of adapter that our writer does not know."""

    exit_code = 21


class TokenizerUnusable(ExportError):
    """The base model's tokenizer files cannot be said in GGUF."""

    exit_code = 22


class VerificationFailed(ExportError):
    """The exported file does not answer as the trained model does; `problems` holds one line for each difference."""

    exit_code = 23

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DeployError(TrainerError):
    """The model could not be made the served one; what was served before still is."""

    exit_code = 24


class RegistryError(TrainerError):
    """The model registry cannot be used, or does not know the model or version."""

    exit_code = 25
