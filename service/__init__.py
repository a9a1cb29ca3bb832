"""The agent server: runs, tools and models behind a REST and an OpenAI-compatible API."""
