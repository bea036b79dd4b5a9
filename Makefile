# Every target installs what it needs: `make demo` and `make test` work in a fresh clone.
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
STAMP := .venv/.installed
# writes the bytecode of what a run imports; where PYTHONDONTWRITEBYTECODE is set, as in many containers, no run would write it
COMPILE = env -u PYTHONDONTWRITEBYTECODE $(PYTHON) -c "import open_clip, wandb, rlr.cli.command_line; \
	from rlr.lazy import import_names; import_names('rlr'); import_names('rlr.toy.models')"
ARGS ?=
SHAPE ?= tiny
# of eval-vbench
RUN ?=
CKPT ?= $(RUN)
CONFIG ?=
PROMPTS ?=
SAMPLES ?=
VIDEOS ?=

# of dashboard
ENTITY ?=
PROJECT ?= rlr

.PHONY: help install lock lint format test test-slow test-faults fuzz audit sbom release demo demo-video bench eval-vbench vbench-weights dashboard docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | awk -F '\t' '{printf "%-15s %s\n", $$1, $$2}'

install: $(STAMP) ## create .venv with exactly the locked packages (installs uv where it is missing)

$(STAMP): requirements.lock pyproject.toml
	@test -x $(PYTHON) || .ci/uv venv
	.ci/uv pip sync --require-hashes --python $(PYTHON) requirements.lock
	.ci/uv pip install --no-deps --python $(PYTHON) -e .
	$(COMPILE)
	@touch $@

lock: ## resolve requirements.lock again from pyproject.toml: versions and hashes, no addresses
	.ci/uv pip compile --upgrade --universal --generate-hashes --python-version 3.11 pyproject.toml \
		--all-extras --group dev --group vbench --group docs --group dashboard --group release -o requirements.lock >/dev/null

lint: install ## ruff, import-linter and mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports
	.venv/bin/mypy

format: install ## let ruff rewrite what it can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

# a file of tests on one core at a time: that is faster than all cores for one test
PARALLEL := -n auto --maxprocesses 8 --dist loadfile

# bytecode of the tests and of what they import is written, or each process would compile it again in every run
test: install ## the tests, without those marked slow, gpu or weights
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(PYTHON) -m pytest $(PARALLEL) $(ARGS)

test-slow: install ## the tests that take long, or repeat a law with more combinations
	$(PYTHON) -m pytest -m slow $(ARGS)

test-faults: install ## signals at 20 random moments of training, checkpoints, evaluation, prediction, VBench and export (half an hour)
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.faults $(ARGS)

fuzz: install ## 2,000 cases of random hostile input, other ones each time, and 1,200 requests; RLR_FUZZ sets the number
	RLR_FUZZ=$${RLR_FUZZ:-2000} OMP_NUM_THREADS=1 $(PYTHON) -m pytest tests/hostile/test_fuzz.py tests/rewards/test_serve_description.py --timeout 3600 $(ARGS)

audit: install ## known vulnerabilities of the locked packages; without a connection it says so, and fails nothing
	@.ci/audit $(PYTHON) $(ARGS)

sbom: install ## the locked packages with their hashes as a bill of materials (CycloneDX) in dist
	@mkdir -p dist
	$(PYTHON) -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/rlr.cdx.json $(ARGS)

release: sbom ## wheel, source archive and bill of materials in dist, with their SHA-256
	rm -f dist/*.whl dist/*.tar.gz dist/SHA256SUMS
	.ci/uv build --out-dir dist
	cd dist && sha256sum *.whl *.tar.gz rlr.cdx.json >SHA256SUMS && cat SHA256SUMS

demo: install ## align the built-in model on this machine's CPU; results in runs/demo
	$(PYTHON) -m rlr.toy.demo $(ARGS)

demo-video: install ## the same for videos: align the built-in text-to-video model; results in runs/demo-video
	$(PYTHON) -m rlr.toy.demo --config configs/video/tiny_rlr.yaml --out runs/demo-video \
		--updates 32 --prompts 60 --every 16 $(ARGS)

bench: install ## time and memory of a step of each estimator; SHAPE=sd14, sd35 or wan1.3b for full size, ARGS for the rest
	$(PYTHON) -m experiments.cost.step --shape $(SHAPE) $(ARGS)

eval-vbench: install ## VBench of RUN=runs/mine or CKPT (CONFIG, PROMPTS, SAMPLES, ARGS), or of the videos in the folder VIDEOS
	$(PYTHON) -m rlr.cli.vbench eval $(strip $(if $(CKPT),--ckpt "$(CKPT)") $(if $(CONFIG),--config "$(CONFIG)") \
		$(if $(VIDEOS),--videos "$(VIDEOS)") $(if $(PROMPTS),--prompts "$(PROMPTS)") \
		$(if $(SAMPLES),--samples $(SAMPLES)) $(ARGS))

vbench-weights: install ## what each dimension of VBench loads, where it goes, and whether it is there
	@$(PYTHON) -m rlr.cli.vbench weights $(ARGS)

dashboard: install ## workspace and report in Weights & Biases: ENTITY=my-team PROJECT=mine (needs wandb-workspaces)
	$(PYTHON) -m rlr.cli.dashboard --entity "$(ENTITY)" --project "$(PROJECT)" $(ARGS)

docs: install ## the documentation in the folder site, which opens from disk; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict $(ARGS)

clean: ## delete caches and builds, but neither .venv nor runs
	rm -rf dist build site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
