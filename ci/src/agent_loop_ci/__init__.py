"""Agent Loop's images and pipelines.

Every stage is a function: chain `export-image`, `as-tarball` or `publish` on the container it returns.
"""

from agent_loop_ci.main import AgentLoop

__all__ = ["AgentLoop"]
