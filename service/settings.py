"""Every setting of the service, read from the environment: `AGENT_LOOP_` and the field's name in capitals.

    AGENT_LOOP_BACKEND=ollama AGENT_LOOP_MODEL=gemma3n python -m service serve

A secret may come from a file instead: `AGENT_LOOP_API_KEY_FILE=/run/secrets/api_key` reads `api_key` from there
(surrounding white space is dropped). `load()` turns what pydantic finds wrong into one line a problem.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from service.errors import StartupError

PREFIX = "AGENT_LOOP_"

Words = Annotated[tuple[str, ...], NoDecode]
"""A tuple of words, comma separated in the environment."""


def default_data_dir() -> Path:
    """Where the run store lives unless told otherwise: the user's state folder (XDG)."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "agent-loop"


class Settings(BaseSettings):
    """The settings, with their defaults. Durations are seconds, sizes bytes, money the unit of the price table."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    # Where it listens
    host: str = "127.0.0.1"
    """Address; beyond loopback it needs a key to start."""
    port: int = Field(8000, ge=0, le=65535)
    """Port; 0 takes a free one."""
    workers: int = Field(1, ge=1, le=64)
    """Processes."""
    drain_seconds: float = Field(25.0, ge=0)
    """After SIGTERM, how long live runs may go on."""
    allowed_hosts: Words = ()
    """Further `Host` names accepted in open mode (loopback names always are)."""
    max_body: int = Field(8 * 1024 * 1024, ge=1024)
    """Largest request body."""

    # Who may call
    api_key: SecretStr | None = None
    """A key with every scope that needs no store, such as the stack's first one."""

    # What it remembers
    data_dir: Path = Field(default_factory=default_data_dir)
    """Folder of the run store."""
    database_url: SecretStr | None = None
    """`postgresql+asyncpg://…` or `sqlite+aiosqlite:///…`; default: `runs.db` in `data_dir`."""
    retention_days: float = Field(30.0, gt=0)
    """How long ended runs are kept."""
    lease_seconds: float = Field(15.0, gt=0)
    """How long a run stays with a process that no longer renews it."""
    poll_seconds: float = Field(0.25, gt=0)
    """How often another process's events and cancel flags are looked for."""

    # What runs models
    backend: Literal["auto", "ollama", "llamacpp", "openai", "scripted"] = "auto"
    """`auto` is Ollama where it answers, else llama.cpp if there is a GGUF file."""
    model: str = "gemma3n"
    """Default model."""
    fallback_model: str | None = None
    """Answers while the default model fails before its first byte."""
    ollama_url: str = Field(default_factory=lambda: ollama_url(os.environ.get("OLLAMA_HOST", "")))
    """Where Ollama is; default: what `OLLAMA_HOST` says."""
    openai_url: str | None = None
    """Address of an OpenAI-compatible server, with its `/v1`."""
    openai_api_key: SecretStr | None = None
    """The key to it."""
    gguf: Path | None = None
    """A GGUF file for the llama.cpp backend."""
    script: Path | None = None
    """A file of turns for the scripted backend."""
    num_ctx: int = Field(8192, ge=256)
    """Context in tokens, always the same: a change makes Ollama reload the model."""
    keep_alive: str = "30m"
    """How long Ollama keeps an idle model in memory."""
    parallelism: int | None = Field(None, ge=1)
    """Model calls at a time; default: what the backend says."""
    connect_timeout: float = Field(5.0, gt=0)
    """To connect to the backend."""
    first_byte_timeout: float = Field(600.0, gt=0)
    """Covers loading and prompt processing: Ollama sends no byte before the first token."""
    stall_timeout: float = Field(120.0, gt=0)
    """Longest silence within a reply."""
    retries: int = Field(2, ge=0, le=10)
    """Further attempts of a model call, only before its first byte."""

    # Tools
    tools: Words | None = None
    """Names of the server tools on offer; default: all that are installed."""
    mcp_servers: dict[str, Any] = Field(default_factory=dict)
    """`{"name": {"url": "https://…/mcp"}}` or `{"name": {"command": ["…"]}}`."""
    mcp_commands: Words = ()
    """Commands that an MCP server may be started with; none by default."""
    fetch_hosts: Words = ()
    """If given, the only host names that the fetch tool may ask."""
    tool_timeout: float = Field(60.0, gt=0)
    """Of one MCP tool call."""

    # How much
    max_queue: int = Field(64, ge=0)
    """Requests and runs that may wait beyond those the backend works on."""
    queue_timeout: float = Field(60.0, gt=0)
    """How long a request waits for the model before 503."""
    max_steps: int = Field(10, ge=1)
    """Model calls of one run."""
    max_tool_calls: int = Field(32, ge=0)
    """Tool calls of one run."""
    max_seconds: float = Field(600.0, gt=0)
    """Wall clock of one run."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of one run, read and written."""
    max_cost: float | None = Field(None, gt=0)
    """Cost of one run by the price table."""
    key_rpm: int | None = Field(None, ge=1)
    """Requests a minute of one API key, unless the key says otherwise; None: no limit."""
    key_tpm: int | None = Field(None, ge=1)
    """Tokens a minute of one key."""
    key_concurrency: int | None = Field(None, ge=1)
    """Requests at a time of one key."""
    price_prompt: float = Field(0.0, ge=0)
    """Per million prompt tokens."""
    price_completion: float = Field(0.0, ge=0)
    """Per million completion tokens."""
    price_second: float = Field(0.0, ge=0)
    """Per second that a model call takes."""

    # What this deployment is
    variant: str = Field("stable", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    """Name of this deployment, part of the session ids it issues."""
    image: str = ""
    """Reference of the image it runs from; recorded with each run, as is the next."""
    revision: str = ""
    """Commit it was built from."""
    agent_prompt: str = "You are a helpful assistant. Use the tools when they help. Answer briefly."
    """System prompt of `agent/default`."""
    agents: dict[str, Any] = Field(default_factory=dict)
    """Further agents: `{"name": {"model": …, "prompt": …, "tools": […]}}`."""

    # What it tells
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least serious log line that is written."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object a line, or text for people."""
    capture_content: bool = False
    """Let logs and traces hold what people and models said."""
    otlp_endpoint: str | None = None
    """Send traces to this OTLP/HTTP collector, such as http://collector:4318."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over files."""
        return init_settings, WordsSource(settings_cls, env_settings), SecretFiles(settings_cls)

    @property
    def open_by_address(self) -> bool:
        """True if it listens on loopback only, where it may go without keys."""
        return is_loopback(self.host)

    def database(self) -> str:
        """The store's SQLAlchemy address."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite+aiosqlite:///{self.data_dir / 'runs.db'}"


class WordsSource(PydanticBaseSettingsSource):
    """The environment, with comma separated words split."""

    def __init__(self, settings_cls: type[BaseSettings], environment: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._environment = environment

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # pragma: no cover
        return self._environment.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        found = dict(self._environment())
        for name in ("allowed_hosts", "tools", "mcp_commands", "fetch_hosts"):
            if isinstance(found.get(name), str):
                found[name] = tuple(word.strip() for word in str(found[name]).split(",") if word.strip())
        return found


class SecretFiles(PydanticBaseSettingsSource):
    """`AGENT_LOOP_X_FILE` for every field that holds a secret."""

    FIELDS = ("api_key", "database_url", "openai_api_key")

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # pragma: no cover
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.FIELDS:
            variable = f"{PREFIX}{name.upper()}_FILE"
            path = os.environ.get(variable)
            if not path:
                continue
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
                raise StartupError(
                    f"Cannot read a secret: {path} ({variable}): {reason}.", "Name a readable file."
                ) from None
            if not text:
                raise StartupError(f"A secret is empty: {path} ({variable}).", "Write the secret into the file.")
            found[name] = text
        return found


def load(**overrides: Any) -> Settings:
    """Read the settings; raises StartupError naming each bad value and its variable."""
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        problems: list[str] = []
        for each in error.errors(include_url=False):
            variable = PREFIX + ".".join(str(part) for part in each["loc"]).upper()
            value: Any = each.get("input")
            problems.append(f"Bad setting: {variable}={value!r}: {each['msg']}.")
        raise StartupError("\n".join(problems), "Correct or unset the variable.") from None
    except ValueError as error:  # a value that should have been JSON
        raise StartupError(f"Bad setting: {error}.", "Write it as JSON.") from None


def is_loopback(host: str) -> bool:
    """Whether `host` (name or address, perhaps bracketed) means this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def ollama_url(host: str) -> str:
    """The base address that Ollama's own client would use for `OLLAMA_HOST` (`[scheme://]host[:port]`)."""
    text = host.strip().rstrip("/")
    if not text:
        return "http://127.0.0.1:11434"
    scheme, _, rest = text.rpartition("://")
    port = "" if rest.rpartition("]")[2].count(":") else ":" + ("443" if scheme == "https" else "11434")
    # A server binds 0.0.0.0; a client has to name a host.
    rest = rest.replace("0.0.0.0", "127.0.0.1", 1) if rest.startswith("0.0.0.0") else rest  # noqa: S104
    return f"{scheme or 'http'}://{rest}{port}"
