"""The eight dashboards: what each asks of Prometheus. `build.py` writes them to dashboards/*.json.

One more asks Loki and is there where Loki is (`SEARCHED`); it goes to ../logs/dashboards.

Add a panel to a board, run `make dashboards` (or `python -m observability.grafana.build`), commit both.
"""

from __future__ import annotations

from observability.grafana.boards.agent import AGENT
from observability.grafana.boards.canary import CANARY
from observability.grafana.boards.drift import DRIFT
from observability.grafana.boards.gpu import GPU
from observability.grafana.boards.host import HOST
from observability.grafana.boards.llm import LLM
from observability.grafana.boards.logs import LOGS
from observability.grafana.boards.saturation import SATURATION
from observability.grafana.boards.service import SERVICE

BOARDS = (SERVICE, LLM, AGENT, SATURATION, HOST, GPU, CANARY, DRIFT)
SEARCHED = (LOGS,)
