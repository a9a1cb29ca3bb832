"""Canary releases: a new variant beside the served one, more traffic by steps, promoted or rolled back by numbers.

`gates.py` says how likely the canary is worse, `controller.py` decides from that, `plan.py` holds what is decided
beforehand, `state.py` what must survive a crash, `observe.py` reads Prometheus, `traffic.py` moves the traffic,
`cli.py` is `agent-loop canary`. Deciding is pure; only the last three touch the world.
"""
