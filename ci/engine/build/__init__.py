"""From file systems and steps to BuildKit: `lowering` writes a Dockerfile, `buildkit` runs it, `builder` answers with it.

`execs` and `tools/` are how a step runs, `images` where bases come from, `shipping` how images leave.
"""
