"""What runs models, behind one protocol (`base.Backend`). `create` makes the one that the settings ask for."""

from service.backends.create import create

__all__ = ["create"]
