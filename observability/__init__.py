"""What watches the system: rules, dashboards, proxies, GPU monitor, backups and drift."""
