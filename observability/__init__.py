"""What watches the system: rules, dashboards, the proxy, GPU monitor, backups and drift.

Where files are (the compose stack mounts them as they stand):

    prometheus/                 the whole folder at /etc/prometheus; of targets/ only the files of the stack that runs
      prometheus.yml            scrape jobs; targets/{alertmanager,prod,train}.yml add what that stack has
      rules/*.yml               slo.yml is generated from slo.yml here (`slo.py`), the others are written by hand
      tests/*.yml               `promtool test rules`
    alertmanager/               alertmanager.yml, reads /run/secrets/alert_sink_token; sink.py takes alerts in
    grafana/
      dashboards/*.json         at /etc/grafana/dashboards; generated from boards/ by build.py
      provisioning/             below /etc/grafana/provisioning; wants AGENT_LOOP_URL in Grafana's environment
    logs/                       loki.yml, config.alloy, and the data source that Grafana gets with `up --logs`
    nginx/                      nginx.conf and split.conf come from `python -m observability nginx`
    gpu_monitor/ backup/ drift/ the three jobs of the image `ops`, ports 9400, 9108, 9109
    names.py                    the metrics that these jobs export

`python -m observability --help` is the command line (`cli.py`).
"""
