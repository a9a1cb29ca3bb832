"""`python -m observability`."""

from observability.cli import app

app(prog_name="python -m observability")
