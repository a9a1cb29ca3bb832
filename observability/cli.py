"""`python -m observability`: the jobs of the image `ops`, and the generators of configuration.

Options can also be given as environment variables (AGENT_LOOP_..., shown in each help). Exit status: 0 well;
1 failed; 2 wrong words or nothing there; 3 damaged; 4 busy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from observability.backup.cli import backup
from observability.command import ALL, Host, Port, reported, say, until_told
from observability.drift.cli import drift

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
nginx = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Write the proxy's configuration.")
app.add_typer(nginx, name="nginx")
app.add_typer(backup, name="backup")
app.add_typer(drift, name="drift")


@app.command()
@reported
def gpu_monitor(
    log: Annotated[Path, typer.Option(help="the JSONL file")] = Path("logs/gpu_metrics.jsonl"),
    runs: Annotated[Path | None, typer.Option(help="the trainer's run folders, to show the newest")] = None,
    port: Port = 9400,
    host: Host = ALL,
) -> None:
    """Sample the GPUs each second, for the log and for Prometheus; without a GPU say gpu_up 0."""
    from prometheus_client import CollectorRegistry

    from observability.exposition import Page
    from observability.gpu_monitor.monitor import Monitor
    from observability.gpu_monitor.nvml import Cards

    registry = CollectorRegistry()
    monitor = Monitor(Cards(), log, registry, runs=runs)
    page = Page(registry, port=port, host=host, health=lambda: monitor.problem)
    with until_told() as stop:
        page.start()
        say(f"GPU monitor on port {page.port}, log {log}")
        monitor.run(stop)
        page.close()


@app.command()
@reported
def alert_sink(
    log: Annotated[Path, typer.Option(help="the JSONL file that alerts are appended to")] = Path("logs/alerts.jsonl"),
    token_file: Annotated[Path | None, typer.Option(help="file with the bearer token that posts must carry")] = None,
    port: Port = 9099,
    host: Host = ALL,
) -> None:
    """Receive Alertmanager's webhooks and keep each alert as a line."""
    from observability.alertmanager.sink import AlertSink

    token = token_file.read_text().strip() if token_file else None
    if token == "":
        raise OSError(f"Empty token, {token_file}. Put the alert sink's token there.")
    sink = AlertSink(log, host=host, port=port, token=token)
    with until_told() as stop:
        sink.start()
        say(f"Alert sink on port {sink.port}, log {log}")
        stop.wait()
        sink.close()


@app.command()
@reported
def slo(
    check: Annotated[bool, typer.Option(help="write nothing; exit 1 when the rules are stale")] = False,
) -> None:
    """Generate prometheus/rules/slo.yml from slo.yml."""
    from observability.slo import RULES_FILE, SLO_FILE, load, render

    text = render(load(SLO_FILE))
    if check:
        if RULES_FILE.read_text() != text:
            say("slo.yml of the rules is stale. Run 'python -m observability slo'.")
            raise typer.Exit(1)
        return
    RULES_FILE.write_text(text)
    say(f"Wrote {RULES_FILE.name}")


@nginx.command("render")
@reported
def nginx_render(
    folder: Annotated[Path, typer.Argument(help="where nginx.conf and split.conf are written")],
    server_name: Annotated[str, typer.Option(help="the site's name; _ answers to any")] = "_",
    tls: Annotated[bool, typer.Option(help="HTTPS, with HTTP sent there")] = True,
    hsts: Annotated[bool, typer.Option(help="tell browsers to come by HTTPS only (a certificate they trust)")] = False,
    https_port: Annotated[int, typer.Option(help="the HTTPS port as visitors see it")] = 443,
    grafana: Annotated[bool, typer.Option(help="Grafana below /grafana/")] = True,
    percent: Annotated[float, typer.Option(help="of new sessions for the canary")] = 0,
) -> None:
    """Write nginx.conf and split.conf."""
    from observability.nginx.render import Proxy, Split, write

    proxy = Proxy(
        server_name=server_name,
        tls=tls,
        hsts=hsts,
        public_https_port=https_port,
        grafana="grafana:3000" if grafana else "",
    )
    write(proxy, folder, Split(percent))


@nginx.command("split")
@reported
def nginx_split(
    folder: Annotated[Path, typer.Argument(help="where split.conf is")],
    percent: Annotated[float, typer.Option(help="of new sessions for the canary")],
    deployed: Annotated[bool, typer.Option(help="a canary runs: its live sessions stay with it even at 0 %")] = False,
    variant: Annotated[str, typer.Option(help="the canary's variant in session ids")] = "canary",
) -> None:
    """Rewrite split.conf alone; reload nginx afterwards."""
    from observability.nginx.render import Split, write_split

    write_split(Split(percent, deployed, variant), folder)
