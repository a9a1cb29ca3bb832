"""`python -m service serve`: the service's own commands without the root command line."""

from service.cli import app

if __name__ == "__main__":
    app(prog_name="python -m service")
