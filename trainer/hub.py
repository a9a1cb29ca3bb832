"""From a model's name to a local folder, with every way that can fail turned into one of our errors.

After this nothing else in the trainer talks to the network.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import presets, tiny
from .errors import ConfigError, DiskFull, HubTokenMissing, HubUnreachable, UnsupportedModel
from .settings import ModelConfig

SMALL = ["*.json", "*.jinja", "tokenizer.model"]
"""Files that a plan and a data check read; weights come on top."""


def fetch(model: ModelConfig, home: Path, *, weights: bool) -> Path:
    """The folder of the base model: the person's own, one made in `home` (preset `tiny`), or the hub's in its cache.

    `weights=False` fetches tokenizer and configuration only, and imports no torch.
    """
    if model.id == presets.TINY:
        return tiny.make(home) if weights else tiny.make_tokenizer(home)
    folder = Path(model.id).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UnsupportedModel(
                f"No model, {folder} has no config.json. Give a folder as save_pretrained writes it."
            )
        return folder
    if model.id.startswith((".", "/", "~")) or model.id.count("/") > 1:
        raise ConfigError(
            [
                f"No such folder, {model.id}. Give a model's folder, its id on the hub, or a preset: "
                f"{', '.join(presets.PRESETS)}."
            ]
        )
    return _download(model, [*SMALL, "*.safetensors"] if weights else SMALL)


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json."""
    try:
        found = json.loads((folder / "config.json").read_text())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not an object")
        return found
    except ValueError as error:
        raise UnsupportedModel(f"Unreadable config.json, {folder}: {error}. Fetch the model again.") from None


def _token() -> str | None:
    """The token in the file that HF_TOKEN_FILE names, as containers get secrets; None: the hub's own ways."""
    path = os.environ.get("HF_TOKEN_FILE")
    if os.environ.get("HF_TOKEN") or not path:
        return None
    try:
        return Path(path).read_text().strip() or None
    except OSError as error:
        raise ConfigError([f"Unreadable token, HF_TOKEN_FILE={path}: {error.strerror}. Correct the path."]) from None


def _download(model: ModelConfig, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    how = "Set HF_TOKEN (or run 'hf auth login')"
    try:
        return Path(snapshot_download(model.id, revision=model.revision, allow_patterns=patterns, token=_token()))
    except GatedRepoError:
        raise HubTokenMissing(
            f"No access to the gated model {model.id}. Accept its licence on its page of the hub. "
            f"{how} of that account."
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(
            [f"No revision '{model.revision}' of {model.id}. Use a branch, tag or commit of it."]
        ) from None
    except RepositoryNotFoundError:
        raise HubTokenMissing(
            f"No model {model.id} on the hub, or no right to see it. Check the name. {how} if it is private."
        ) from None
    except HFValidationError as error:
        raise ConfigError(
            [f"No model's name, '{model.id}': {error}. Use a preset, an id such as owner/name, or a folder."]
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise HubUnreachable(
            f"The hub cannot be reached and the cache lacks {model.id}. Check the network, "
            "or give the folder of a downloaded copy to --model."
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise HubTokenMissing(f"The hub refuses {model.id} (status {status}). {how} with access to it.") from None
        raise HubUnreachable(f"The hub answers {status} for {model.id}. Try again later.") from None
    except OSError as error:
        import errno

        if error.errno == errno.ENOSPC:
            raise DiskFull(f"Disk full while fetching {model.id}. Free space in the hub's cache (HF_HOME).") from None
        raise HubUnreachable(f"The hub cannot be reached for {model.id}: {error}. Check the network.") from None
