"""The fields that this engine serves, a file for each kind of object.

Importing this registers them. A field that Dagger's schema has and no file here serves is refused by name.
"""

from . import (
    container,
    directory,
    envfile,
    execution,
    file,
    files,
    host,
    module,
    mounts,
    output,
    query,
    records,
    secret,
)

__all__ = [
    "container",
    "directory",
    "envfile",
    "execution",
    "file",
    "files",
    "host",
    "module",
    "mounts",
    "output",
    "query",
    "records",
    "secret",
]
