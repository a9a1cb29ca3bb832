# The short names a person types. Each is one line; agent-loop does the work.
.PHONY: help host dev up down ps logs test test-fast test-slow lint fmt lock doctor clean

AL := .venv/bin/agent-loop

help: ## list these names
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 24

host: ## (the virtual environment for running)
	@python3 -m ci.bootstrap host

dev: ## (the same with what the tests need)
	@python3 -m ci.bootstrap dev

up: host ## set up what is missing, build, start, wait, print addresses
	@$(AL) up

down: host ## stop the stack and keep its data
	@$(AL) down

ps: host ## list the stack's containers
	@$(AL) ps

logs: host ## show the stack's logs, merged
	@$(AL) logs

test-fast: dev ## the tests that need no container, under 2 minutes
	@$(AL) self-test fast

test: dev ## everything but the slow tests; sets up what is missing
	@$(AL) self-test

test-slow: dev ## digests twice, chaos, kill points, other platforms
	@$(AL) self-test slow

lint: dev ## ruff and pyright
	@$(AL) self-test lint

lock: dev ## refresh requirements/*.txt
	@$(AL) lock
