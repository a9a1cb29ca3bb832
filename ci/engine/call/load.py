"""From a word on the command line to an object in the session: paths, images, secrets, caches."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

from ci.engine.module.api import Api, Field
from ci.engine.module.errors import CallError, PlainError
from ci.engine.module.source import ModuleSource
from ci.engine.module.types import Argument

from .values import Address

_MISSING_FOLDER = (
    "failed to get snapshot: failed to snapshot: failed to receive stat message: rpc error: code = NotFound desc = "
    "get full root path: rpc error: code = NotFound desc = eval symlinks: lstat {path}: no such file or directory"
)
"""How a Dagger engine says that a folder is not there (recorded: `arg-directory-missing`)."""


def _from_git(text: str) -> bool:
    """Whether an address is a repository's: with a scheme, or `host.name/owner/…` where no such path is."""
    if "://" in text or text.startswith("git@"):
        return True
    return re.match(r"[\w-]+(\.[\w-]+)+/[\w.-]+/[\w.-]+", text) is not None and not Path(text).exists()


class Loader:
    """Loads arguments for one module, relative to the working folder."""

    def __init__(self, api: Api, source: ModuleSource):
        self._api = api
        self._source = source

    def load(self, address: Address, ignore: tuple[str, ...] = ()) -> str:
        """The id of what an address names. Raises CallError with the reason."""
        text = address.text
        if address.made is not None:
            return self._api.root(*address.made, "id")
        if address.type in ("Directory", "File") and _from_git(text):
            raise CallError(f"a {address.type} from git needs a Dagger engine. Clone it and give its path.")
        match address.type:
            case "Directory":
                return self._directory(Path(text), ignore)
            case "File":
                if not Path(text).expanduser().exists():
                    raise CallError(f"stat {text}: no such file or directory")
                return self._file(Path(text))
            case "Secret":
                return self._secret(text)
            case "Container":
                return self._api.root("container", Field("from", {"address": json.dumps(text)}), "id")
            case "CacheVolume":
                return self._api.root(Field("cacheVolume", {"key": json.dumps(text)}), "id")
            case other:
                raise CallError(f"{other} needs a Dagger engine. Run the same words with 'dagger call'.")

    def default(self, argument: Argument) -> str:
        """The id of an argument's DefaultPath or DefaultAddress."""
        if argument.default_address:
            return self.load(Address("Container", argument.default_address))
        path = self._source.context_path(argument.default_path)
        if argument.type.name == "File":
            return self._file(path)
        if argument.type.name == "Directory":
            return self._directory(path, argument.ignore)
        raise CallError(f"{argument.type.name} needs a Dagger engine. Run the same words with 'dagger call'.")

    def check_platform(self, name: str, text: str) -> None:
        """Raise PlainError for what cannot be a platform."""
        if not 1 <= len(text.split("/")) <= 3:
            raise PlainError(
                f'set call inputs: convert arg "{name}": "{text}": cannot parse platform specifier: invalid argument'
            )

    def _directory(self, path: Path, ignore: tuple[str, ...]) -> str:
        absolute = os.path.abspath(path.expanduser())  # noqa: PTH100 - links stay as they are written
        if not Path(absolute).exists():
            raise CallError(_MISSING_FOLDER.format(path=absolute))
        if not Path(absolute).is_dir():
            raise CallError(f"stat {absolute}: not a directory")
        arguments = {"path": json.dumps(absolute)}
        if ignore:
            arguments["exclude"] = json.dumps(list(ignore))
        return self._api.root("host", Field("directory", arguments), "id")

    def _file(self, path: Path) -> str:
        absolute = os.path.abspath(path.expanduser())  # noqa: PTH100
        return self._api.root("host", Field("file", {"path": json.dumps(absolute)}), "id")

    def _secret(self, text: str) -> str:
        scheme, colon, rest = text.partition(":")
        if not colon:
            now = time.strftime("%H:%M:%S")
            print(f"{now} WRN '{text}' is read as the variable's name; write env://{text}", file=sys.stderr)
            scheme, rest = "env", text
        uri = f"{scheme}://{rest.removeprefix('//')}"
        if scheme == "file":
            path = rest.removeprefix("//")
            uri = f"file://{os.path.abspath(os.path.expanduser(path))}"  # noqa: PTH100, PTH111
        return self._api.root(Field("secret", {"uri": json.dumps(uri)}), "id")
