"""Scores a model or a deployment on golden prompts: does it answer rightly, call the right tools, with valid arguments?

Canary and deploy ask this before they send traffic; `agent-loop evals run FILE` is the command.
"""
