"""Pipelines, their embedded engine and the stack: everything that runs on a person's machine."""
