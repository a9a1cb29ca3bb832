"""What `benchmarks/gpu.py` runs: the arms, what they train on, how they are measured."""


class CannotRun(Exception):
    """Why an arm has no figures here, in a few words."""
