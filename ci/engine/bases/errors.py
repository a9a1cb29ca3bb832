"""What can go wrong with a base.

BasesError
├── UnknownBase      no recipe has this name
├── NoPackageSource  this machine's apt knows no Debian archive
├── MissingTool      mmdebstrap, or emulation for another architecture, is not installed
└── BuildFailed      mmdebstrap stopped; carries the end of its output
"""


class BasesError(Exception):
    """A base cannot be had. The message is one line: problem, value, place, what to do."""


class UnknownBase(BasesError):
    """No recipe has this name."""


class NoPackageSource(BasesError):
    """This machine's apt configuration names no Debian archive to install from."""


class MissingTool(BasesError):
    """A program the build needs is not installed."""


class BuildFailed(BasesError):
    """mmdebstrap stopped. `output` holds the last lines it printed."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output
