"""The machine and its containers."""

from __future__ import annotations

from observability.grafana.boards.queries import increase, rate
from observability.grafana.panels import Board, Row, line, q

NAMED = 'name!=""'
REAL_NETWORKS = 'device!~"lo|veth.*|br-.*"'
REAL_DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'
HOST = Board(
    "agent-loop-host",
    "5 Host and containers",
    "Use, saturation and errors of the machine and of each container.",
    [
        Row(
            "Host",
            [
                line(
                    "CPU used",
                    "percentunit",
                    q(
                        '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))',
                        "{{instance}}",
                    ),
                    most=1,
                    width=6,
                ),
                line(
                    "Load for each core",
                    "short",
                    q(
                        'node_load1 / on (instance) count by (instance) (node_cpu_seconds_total{mode="idle"})',
                        "{{instance}}",
                    ),
                    limits=(1,),
                    width=6,
                ),
                line(
                    "Memory used",
                    "percentunit",
                    q("1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", "{{instance}}"),
                    most=1,
                    width=6,
                ),
                line(
                    "Processes waiting",
                    "percentunit",
                    q("rate(node_pressure_cpu_waiting_seconds_total[$__rate_interval])", "for CPU"),
                    q("rate(node_pressure_memory_waiting_seconds_total[$__rate_interval])", "for memory"),
                    q("rate(node_pressure_io_waiting_seconds_total[$__rate_interval])", "for disk"),
                    width=6,
                ),
                line(
                    "Disk free",
                    "percentunit",
                    q(f"node_filesystem_avail_bytes{{{REAL_DISKS}}} / node_filesystem_size_bytes", "{{mountpoint}}"),
                    limits=(0.05, 0.15),
                    falling=True,
                ),
                line(
                    "Disk traffic",
                    "Bps",
                    q("sum by (device) (rate(node_disk_read_bytes_total[$__rate_interval]))", "read {{device}}"),
                    q("sum by (device) (rate(node_disk_written_bytes_total[$__rate_interval]))", "write {{device}}"),
                ),
                line(
                    "Network",
                    "Bps",
                    q(rate("node_network_receive_bytes_total", "device", REAL_NETWORKS), "in {{device}}"),
                    q(rate("node_network_transmit_bytes_total", "device", REAL_NETWORKS), "out {{device}}"),
                ),
            ],
        ),
        Row(
            "Containers",
            [
                line(
                    "CPU cores used",
                    "short",
                    q(rate("container_cpu_usage_seconds_total", "name", NAMED), "{{name}}"),
                    stacked=True,
                ),
                line(
                    "Throttled",
                    "percentunit",
                    q(
                        f"{rate('container_cpu_cfs_throttled_periods_total', 'name', NAMED)} / "
                        f"{rate('container_cpu_cfs_periods_total', 'name', NAMED)}",
                        "{{name}}",
                    ),
                    description="Share of scheduling periods in which the CPU limit held the container back.",
                ),
                line(
                    "Memory of the limit",
                    "percentunit",
                    q(
                        f"container_memory_working_set_bytes{{{NAMED}}} "
                        f"/ (container_spec_memory_limit_bytes{{{NAMED}}} > 0)",
                        "{{name}}",
                    ),
                    limits=(0.9,),
                    most=1,
                ),
                line(
                    "Out of memory",
                    "short",
                    q(increase("container_oom_events_total", "name", NAMED), "{{name}}"),
                ),
                line(
                    "Network in and out",
                    "Bps",
                    q(rate("container_network_receive_bytes_total", "name", NAMED), "in {{name}}"),
                    q(rate("container_network_transmit_bytes_total", "name", NAMED), "out {{name}}"),
                ),
                line("Time since start", "s", q('time() - container_start_time_seconds{name!=""}', "{{name}}")),
            ],
        ),
    ],
)
