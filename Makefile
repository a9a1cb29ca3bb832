# The short names a person types. Each is one line; agent-loop does the work.
.PHONY: help host dev up down ps logs test test-fast test-slow lint fmt lock doctor clean dashboards demo-model bench-service bench-trainer bench-pipelines bench-stack \
	train-dev train-gemma-2b train-gemma-9b train-custom train-monitor train-status train-logs train-stop train-clean

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

test-fast: dev ## the tests that need no container and start nothing that takes seconds
	@$(AL) self-test fast

test: dev ## everything but the slow tests; sets up what is missing
	@$(AL) self-test

test-slow: dev ## every recorded case, digests twice, the whole stack, chaos, kill points, supply chain
	@$(AL) self-test slow

lint: dev ## ruff and pyright
	@$(AL) self-test lint

lock: dev ## refresh requirements/*.txt
	@$(AL) lock

train-dev: host ## Jupyter Lab, TensorBoard, tracking page, GPU monitor, backups
	@$(AL) up train

train-gemma-2b train-gemma-9b train-custom: host ## fine-tune in the training container [MODEL=] DATA=
	@$(AL) job $@ $(if $(MODEL),--model $(MODEL)) $(if $(DATA),--data $(DATA))

train-monitor train-status train-logs train-stop train-clean: host ## of the newest run in the training container
	@$(AL) job $@

dashboards: dev ## write the Grafana dashboards again
	@.venv/bin/python -m observability.grafana.build

demo-model: dev ## train and export the demo model again
	@$(AL) demo-model

bench-service: dev ## the service beside a raw relay and LiteLLM, about eight minutes
	@.venv/bin/python -m benchmarks.service

bench-trainer: dev ## our loop beside TRL's: time, memory, head, packing, resume
	@.venv/bin/uv venv -q .cache/parity && .venv/bin/uv pip install -q -p .cache/parity --require-hashes -r requirements/parity.txt
	@.cache/parity/bin/python benchmarks/bench_trainer.py

bench-pipelines: dev ## the embedded engine beside plain buildx: no change, source edit, dependency edit
	@.venv/bin/python -m benchmarks.bench_pipelines --json reports/bench-pipelines.json

bench-stack: dev ## `up` with nothing changed, beside compose's own
	@.venv/bin/python -m benchmarks.bench_stack

fmt: dev ## format the code
	@.venv/bin/ruff format && .venv/bin/ruff check --fix

doctor: host ## what the stack needs here, with the fix for each
	@$(AL) doctor

clean: host ## free disk: unused images of ours, old build cache
	@$(AL) clean
