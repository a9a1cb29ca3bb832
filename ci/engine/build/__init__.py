"""From file systems and steps to BuildKit: `lowering` writes a Dockerfile, `buildkit` runs it, `builder` gives answers.

`execs` and `tools/` are how a step runs, `images` where bases come from, `shipping` how images leave
(`image`, `store`).
"""
