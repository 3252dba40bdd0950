# `make train`, `make test` and `make check` work from a clean clone: they make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP = $(RUN) -m pip install --quiet --disable-pip-version-check
# Where pip looks for torch first. PyPI's for Linux brings several GB of CUDA, in vain without a GPU; `make TORCH=` takes it.
CPU_TORCH := https://download.pytorch.org/whl/cpu
TORCH ?= $(shell [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && \
	$(PYTHON) -c 'import urllib.request as r; r.urlopen("$(CPU_TORCH)/torch", timeout=10)' 2>/dev/null && \
	echo --index-url $(CPU_TORCH))
# Pong until it is won; a game, environment or experiment named in ARGS goes without that stop.
EXPERIMENT := $(if $(filter experiment=%,$(ARGS)),,experiment=$(if $(filter env=% env.game=%,$(ARGS)),atari_cpu,pong_cpu))

TRIES ?= 10

# `make train env=toy` sets a variable of make's that nothing reads.
UNREAD := $(foreach name,$(filter-out ARGS PYTHON TORCH TRIES SHELL,$(.VARIABLES)),$(if \
	$(findstring command line,$(origin $(name))),$(name)=$($(name))))
$(if $(strip $(UNREAD)),$(error words of a command go into ARGS: make $(MAKECMDGOALS) ARGS="$(strip $(ARGS) $(UNREAD))"))

.PHONY: demo train evaluate mnist fashion-mnist clips backgrounds test test-slow test-gpu test-chaos check bench bench-sac bench-rendering mutation docs docs-serve compare tensorboard clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  /p' Makefile

DEMO := runs/demo
demo: $(VENV)/installed ## learn Catch with an auxiliary task in a minute, then play Pong with a trained agent: video and pictures
	$(RUN) train.py experiment=demo run_dir=$(DEMO)/catch $(ARGS)
	$(RUN) evaluate.py checkpoint=zoo/pong-dqn episodes=1 json=$(DEMO)/pong.json video=$(DEMO)/pong.mp4 attribution=$(DEMO)/pong
	@echo "Catch, after the training:          $(DEMO)/catch/game.mp4"
	@echo "its auxiliary task, in pictures:    $(DEMO)/catch/pictures"
	@echo "Pong, and what its agent reads:     $(DEMO)/pong.mp4 and $(DEMO)/pong/both_4.png"

train: $(VENV)/installed ## train (ARGS="env=atari/breakout aux=permutation seed=3"); again to resume
	$(RUN) train.py $(EXPERIMENT) $(ARGS)

evaluate: $(VENV)/installed ## evaluate (ARGS="checkpoint=zoo/pong-permutation")
	$(RUN) evaluate.py $(ARGS)

mnist: $(VENV)/installed ## bring MNIST into data/mnist, for source=idx
	$(RUN) scripts/download.py mnist

fashion-mnist: $(VENV)/installed ## bring Fashion-MNIST into data/fashion-mnist, on Debian and Ubuntu
	$(RUN) scripts/download.py fashion-mnist

clips: $(VENV)/installed ## bring three short videos into data/clips, for source=videos
	$(RUN) scripts/download.py clips

backgrounds: $(VENV)/installed ## bring ten short videos into data/backgrounds, for env.background=video, on Debian and Ubuntu
	$(RUN) scripts/download.py backgrounds

test: $(VENV)/installed ## run the fast tests
	$(RUN) -m pytest -n 2 --dist loadfile $(ARGS)

test-gpu: $(VENV)/installed ## run the tests that need a CUDA device
	$(RUN) -m pytest -m gpu $(ARGS)

test-slow: $(VENV)/installed ## run the learning tests, minutes each
	$(RUN) -m pytest -m slow $(ARGS)

test-chaos: $(VENV)/installed ## kill, damage and hinder programs at random, TRIES=10 times each; the table in docs/reliability.md
	TRIES=$(TRIES) $(RUN) -m pytest -m chaos -n 2 tests/chaos $(ARGS); code=$$?; \
		$(RUN) benchmarks/chaos_report.py && exit $$code

check: $(VENV)/installed ## ruff, mypy strict, import rules
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/installed ## measure speed beside Stable-Baselines3, writes results/dqn_speed.md
	$(RUN) benchmarks/dqn_speed.py $(ARGS)

bench-sac: $(VENV)/installed ## measure SAC beside a straightforward implementation, writes results/sac_speed.md
	$(RUN) benchmarks/sac_speed.py $(ARGS)

mutation: $(VENV)/installed ## measure the tests by mutants of the code, writes results/mutation.json and its page
	$(PIP) cosmic-ray coverage
	OMP_NUM_THREADS=1 $(RUN) benchmarks/mutation.py $(ARGS)
	$(RUN) benchmarks/mutation_report.py

bench-rendering: $(VENV)/installed ## measure dm_control's pictures, writes results/rendering.md
	$(RUN) benchmarks/rendering.py $(ARGS)

docs: $(VENV)/docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

docs-serve: $(VENV)/docs ## show the documentation at http://127.0.0.1:8000, rebuilt at each change
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve

compare: $(VENV)/installed ## compare runs (ARGS="runs/pong baseline=aux=none"), writes runs/_groups/report.html
	$(RUN) compare.py $(or $(ARGS),runs)

tensorboard: $(VENV)/installed ## open the runs in TensorBoard, with the mean and the band of each group of them
	-@$(RUN) compare.py runs >/dev/null
	$(VENV)/bin/tensorboard --logdir runs

clean: ## remove .venv; runs stay
	rm -rf $(VENV)

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "error: Python 3.11 to 3.14 is needed (PYTHON=python3.12 make ...)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "error: this Python has no venv: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),$(PIP) $(TORCH) "$$(sed -n 's/.*"\(torch[^"]*\)".*/\1/p' pyproject.toml)")
	$(PIP) -e '.[dev]'
	@touch $@

$(VENV)/docs: $(VENV)/installed
	$(PIP) -e '.[docs]'
	@touch $@
