"""Stands for an application."""

print("started")
