"""A Dagger Python module: where it lies (`source`), its process (`process`, `child`), what it registers
(`registration`, `types`), and calling its functions in a session of ours (`session`, `calls`).

Knows nothing of command lines; `call` and `plan` are built on it.
"""
