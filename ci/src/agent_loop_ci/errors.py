"""What a function says when what it ran did not succeed.

PipelineError
├── SuiteFailed     the test suite failed; carries the end of its output
└── BadArgument     a value that a function cannot use
"""


class PipelineError(Exception):
    """A function's work was done and its outcome is a failure, or it could not begin."""


class SuiteFailed(PipelineError):
    """The test suite failed."""


class BadArgument(PipelineError):
    """A value that a function cannot use. `Problem, value. What to do.`"""


def tail(text: str, lines: int) -> str:
    """The last `lines` lines of `text`, with a line in front that counts what was left out."""
    every = text.rstrip().splitlines()
    left_out = len(every) - lines
    return "\n".join([f"[{left_out} lines before]", *every[-lines:]] if left_out > 0 else every)
