# One recipe for people, hooks and CI. Every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
DEMO := demo
AUDIT := .venv-audit
PINS := constraints.txt
LOCK := infra/requirements.lock
TEST_LOCK := infra/requirements-test.lock
LOCKER := .venv-lock
SBOM := .venv-sbom
export PIP_NO_INPUT := 1

.PHONY: study demo study-s3 test test-all fuzz check audit lock sbom format bench gpu clean help

help:
	@echo "make study     install, draw a phantom set, run the demo study, print its table"
	@echo "make demo      the same, then promote its model and screen a night: report and worklist"
	@echo "make study-s3  all of it, from phantoms to worklist, on an S3 server that it starts"
	@echo "make test      install with test extras, run the tests"
	@echo "make test-all  the slow tests too"
	@echo "make fuzz      hostile files in hundred thousands for the readers; takes hours"
	@echo "make check     ruff, mypy, import-linter"
	@echo "make audit     look the pinned packages up among known vulnerabilities; needs the internet"
	@echo "make lock      the pins with the hashes of their files; takes half an hour"
	@echo "make sbom      what is installed in .venv, as CycloneDX: sbom.json"
	@echo "make format    let ruff format and fix"
	@echo "make bench     benchmarks: writes tests/bench/RESULTS.md; takes about three hours"
	@echo "make gpu       what a GPU can tell, in under eight minutes: tests/bench/RESULTS-gpu.md"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Thyro needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# Held by the hashes of their files, setuptools too, which builds Thyro. What the locks lack is then
# held by its version: torch, CUDA's libraries, and whatever another Python needs besides. The locks
# are made on Linux; on another system all is held by version.
define install_locked
	if [ "$$(uname -s)" = Linux ]; then $(PIP) --no-deps --require-hashes $(1); \
		else $(PIP) -c constraints.txt setuptools; fi
endef

$(VENV)/.installed: pyproject.toml constraints.txt $(LOCK) | $(BIN)/python
	$(call install_locked,-r $(LOCK))
	$(PIP) --no-build-isolation -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt $(LOCK) $(TEST_LOCK) | $(BIN)/python
	$(call install_locked,-r $(LOCK) -r $(TEST_LOCK))
	$(PIP) --no-build-isolation -c constraints.txt -e ".[test]"
	@touch $@ $(VENV)/.installed

# With the job server of Ray's dashboard, which slow tests submit to.
$(VENV)/.installed-all: pyproject.toml constraints.txt $(LOCK) $(TEST_LOCK) | $(BIN)/python
	$(call install_locked,-r $(LOCK) -r $(TEST_LOCK))
	$(PIP) --no-build-isolation -c constraints.txt -e ".[cluster,test]"
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed

study: $(VENV)/.installed
	$(BIN)/thyro phantom $(DEMO)/phantoms --images 508 --malignant 93 --seed 0 --weights $(DEMO)/weights
	$(BIN)/thyro study $(DEMO)/phantoms --config deployments/demo.yaml --set weights=$(DEMO)/weights --store $(DEMO)/store

demo: study
	$(BIN)/thyro promote --store $(DEMO)/store
	$(BIN)/thyro phantom $(DEMO)/night --images 40 --malignant 8 --seed 1
	$(BIN)/thyro screen $(DEMO)/night/images --store $(DEMO)/store

study-s3: $(VENV)/.installed-test
	$(BIN)/python -m tests.e2e.tour $(DEMO)/s3

# Two at a time: half of the suite waits for processes to start. A file's tests share what they make.
test: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=40

test-all: $(VENV)/.installed-all
	$(BIN)/pytest -m "slow or not slow"

fuzz: $(VENV)/.installed-test
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest tests/project/test_security.py -m slow -k long_fuzz --timeout 0

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(AUDIT)/bin/pip-audit:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --disable-pip-version-check "pip-audit==2.10.1"

# Strict: a package that could not be looked up is no package without findings.
audit: $(AUDIT)/bin/pip-audit
	$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $(PINS) \
		$(shell sed -n 's/^\([A-Z][^ ]*\) .*/--ignore-vuln \1/p' infra/audit.txt)

$(LOCKER)/bin/pip-compile:
	$(PYTHON) -m venv $(LOCKER)
	$(LOCKER)/bin/pip install --quiet --disable-pip-version-check "pip-tools==7.6.2"

COMPILE := $(LOCKER)/bin/pip-compile --quiet --generate-hashes --strip-extras --no-annotate \
	--no-header --no-emit-index-url --no-emit-find-links --no-allow-unsafe \
	--unsafe-package torch --unsafe-package torchvision -c $(PINS)

# All that the image needs but torch, whose wheels come from another index than the rest; and what
# the tests need besides.
lock: $(LOCKER)/bin/pip-compile $(BIN)/python
	$(COMPILE) --extra archive --extra cluster --extra excel --extra export --extra paper --output-file $(LOCK) pyproject.toml
	$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*project["optional-dependencies"]["test"], sep="\n")' \
		| $(COMPILE) --output-file $(TEST_LOCK) -

$(SBOM)/bin/cyclonedx-py:
	$(PYTHON) -m venv $(SBOM)
	$(SBOM)/bin/pip install --quiet --disable-pip-version-check "cyclonedx-bom==7.5.0"

sbom: $(VENV)/.installed $(SBOM)/bin/cyclonedx-py
	$(SBOM)/bin/cyclonedx-py environment --output-file sbom.json $(BIN)/python

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-test
	$(BIN)/python tests/bench/results.py

# On a machine with a GPU: without Ray, Prefect and network too. The Python that PYTHON names, else the
# first one that has torch and sees a GPU: this environment's, python3; else this environment's anew.
GPU_READY := import importlib.util as u, torch; assert u.find_spec("torchvision") and torch.cuda.is_available()
gpu:
	@if [ "$(origin PYTHON)" != file ]; then python="$(PYTHON)"; \
	elif [ -x $(BIN)/python ] && $(BIN)/python -c '$(GPU_READY)' 2>/dev/null; then python=$(BIN)/python; \
	elif $(PYTHON) -c '$(GPU_READY)' 2>/dev/null; then python=$(PYTHON); \
	elif $(MAKE) --no-print-directory $(VENV)/.installed; then python=$(BIN)/python; \
	else echo "no environment could be made: going on with $(PYTHON)"; python=$(PYTHON); fi; \
	echo "with $$python"; "$$python" tests/bench/gpu.py

clean:
	rm -rf $(VENV) $(AUDIT) $(LOCKER) $(SBOM) sbom.json $(DEMO) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
