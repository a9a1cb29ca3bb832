"""`agent-loop plan`, `policy` and `dockerfile`: what a function would build, told without building it.

`planner` runs the function in a session that notes what it is asked; `graph` and `text` show that, `policy` checks it
with the `rules` that `settings` choose.
"""
