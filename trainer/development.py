"""`train-dev`: Jupyter Lab and TensorBoard side by side on this machine, ended together."""

from __future__ import annotations

import importlib.util
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from .errors import ConfigError


def commands(output: Path, host: str, jupyter_port: int, tensorboard_port: int) -> dict[str, list[str]]:
    """What is run; the token reaches Jupyter by environment, so that no process list shows it."""
    return {
        "jupyterlab": [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", f"--ip={host}", f"--port={jupyter_port}"),
            *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={Path.cwd()}"),
        ],
        "tensorboard": [
            *(sys.executable, "-m", "tensorboard.main", "--logdir", str(output), "--host", host),
            *("--port", str(tensorboard_port)),
        ],
    }


def serve(output: Path, host: str, jupyter_port: int, tensorboard_port: int) -> None:
    """Run what is installed until Ctrl-C; say what is not."""
    import os

    token = os.environ.get("JUPYTER_TOKEN") or secrets.token_urlsafe(24)
    wanted = commands(output, host, jupyter_port, tensorboard_port)
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if len(missing) == len(wanted):
        raise ConfigError([f"Not installed: {', '.join(missing)}. Install the extras trainer and jupyter."])
    for name in missing:
        print(f"{name} is not installed: left out. pip install {name}", file=sys.stderr)
    running = [
        subprocess.Popen(wanted[name], env={**os.environ, "JUPYTER_TOKEN": token})
        for name in wanted
        if name not in missing
    ]
    if "jupyterlab" not in missing:
        print(f"Jupyter Lab  http://{host}:{jupyter_port}/lab?token={token}")
    if "tensorboard" not in missing:
        print(f"TensorBoard  http://{host}:{tensorboard_port}")
    sys.stdout.flush()
    try:
        for process in running:
            process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
