"""A module as people write them: several files, objects in objects, a constructor that waits, every kind of result."""

from .main import Zoo as Zoo
