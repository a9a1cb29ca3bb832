"""Names on the command line: how Python's and GraphQL's names are written as words and flags.

The rules are Dagger's (module-protocol, "Listing and help"): kebab case, digits stand apart
(`build_h100` is `build-h-100`), a run of capitals is one word up to the letter that starts the next
(`experimentalWithAllGPUs` is `experimental-with-all-gp-us`).
"""

from __future__ import annotations

import re

_EDGE = re.compile(
    r"""(?<=[a-z])(?=[A-Z0-9])      # a word ends before a capital or a digit
      | (?<=[0-9])(?=[A-Za-z])      # a number ends before a letter
      | (?<=[A-Z])(?=[0-9])
      | (?<=[A-Z])(?=[A-Z][a-z])    # the last capital of a run begins the next word
    """,
    re.VERBOSE,
)


def kebab(name: str) -> str:
    """`off_by_default`, `offByDefault` -> `off-by-default`.

    Python's names go through the schema's camel case first, as on Dagger: `a_b_c` is `aBC` and so `a-bc`.
    """
    return _EDGE.sub("-", camel(name) if re.search("[_ .]", name) else name).lower()


def camel(name: str) -> str:
    """`line_count` -> `lineCount`: a name as the API's schema has it."""
    first, *rest = re.split(r"[-_ .]+", name.strip("_"))
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def pascal(name: str) -> str:
    """`agent-loop` -> `AgentLoop`: the name of a module's main object."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[-_ .]+", name))


def prefixed(module: str, type_name: str) -> str:
    """The name of a module's own type as the API shows it: `Report` of module `probe` is `ProbeReport`."""
    prefix = pascal(module)
    return type_name if type_name.startswith(prefix) else prefix + type_name
