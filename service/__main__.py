"""`python -m service serve`: the service's own commands without the root command line."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["evals"]:
        from service.evals.cli import app

        del sys.argv[1]
        app(prog_name="python -m service evals")
    else:
        from service.cli import app

        app(prog_name="python -m service")
