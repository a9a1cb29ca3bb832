"""Runs: the agent loop, its limits, its durable event log, and who works on which run.

spec.py      what a run is asked to do          state.py     what its log says was done so far (pure)
protocol.py  tools for models that lack them    loop.py      one run, from its state to its ending
log.py       writing events, in batches         runner.py    all runs of a process: leases, cancel, resume
reader.py    following a run's events           features.py  the row that drift detection reads
"""
