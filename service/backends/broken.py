"""What the ends of a connection mean to a backend, the same for every HTTP upstream."""

from __future__ import annotations

from service.backends.base import BackendError, BackendProtocolError, BackendStalled, BackendUnavailable
from service.backends.transport import Broken, Silent, TransportError, Unreachable


class EndedEarly(BackendProtocolError):
    """The stream ended cleanly but without its last message; Ollama does so when a model repeats itself."""

    code = "backend_ended_early"


def from_transport(who: str, error: TransportError, *, sent: bool) -> BackendError:
    """The backend's error for a request to `who` that did not go through; `sent`: some of it was handed on."""
    if isinstance(error, Silent):
        return BackendStalled(f"{who} went silent. {error}", before_first_byte=not sent)
    # A connection that ends before its first byte is a server that went away: safe to repeat.
    if isinstance(error, Unreachable) or (isinstance(error, Broken) and not sent):
        return BackendUnavailable(f"{who} does not answer. {error}", before_first_byte=not sent)
    return BackendProtocolError(f"{who}'s reply was cut off. {error}", before_first_byte=not sent)
