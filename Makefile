# One entry per verb, the same for people and for continuous integration. `make help` lists them.
comma := ,
PYTHON ?= python3
LOWEST_PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
EXTRAS ?= vendor,client,local,otel,test,dev
KUBECTL ?= kubectl
DOCKER ?= docker
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: help install check check-deploy format test test-isolated test-lowest test-export test-notebook test-browser test-compose test-ray docs test-docs test-wheel newcomer prove-short prove-billing prove-vendor prove-strangers fuzz bench-vendor demo lock sbom clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

install: $(STAMP) ## make the virtual environment in $(VENV)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "VL2V needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 ...")'
	@echo "==> Installing vl2v[$(EXTRAS)] into $(VENV) (PyTorch is large: a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

check: install ## lint, format check, types, architecture, unsafe code, secrets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive shared vendor_api client scripts
	$(BIN)/python scripts/check_secrets.py

check-deploy: ## render the Kubernetes manifests and validate them, offline; needs kubectl
	@command -v $(KUBECTL) >/dev/null || { echo "check-deploy: $(KUBECTL) is missing. It renders the manifests: apt install kubernetes-client (Debian 13), or https://kubernetes.io/docs/tasks/tools/" >&2; exit 1; }
	$(MAKE) install EXTRAS=deploy VENV=$(VENV)-deploy
	@set -e; for folder in deploy/kubernetes/migrate deploy/kubernetes/overlays/*; do \
		echo "==> $$folder"; $(KUBECTL) kustomize "$$folder" >$(VENV)-deploy/rendered.yaml; \
		$(VENV)-deploy/bin/kubernetes-validate --strict $(VENV)-deploy/rendered.yaml; done
	$(VENV)-deploy/bin/kubernetes-validate --strict deploy/kubernetes/secrets.example.yaml

format: install ## rewrite the code as the checks want it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install ## the whole test suite
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist worksteal

test-isolated: ## each side's tests in an environment that holds that side alone, and a purchase in one of the extra buy
	$(MAKE) install EXTRAS=client,test VENV=$(VENV)-client
	$(VENV)-client/bin/python scripts/check_isolation.py client
	$(VENV)-client/bin/pytest tests/contract tests/client
	$(MAKE) install EXTRAS=vendor,test VENV=$(VENV)-vendor
	$(VENV)-vendor/bin/python scripts/check_isolation.py vendor
	$(VENV)-vendor/bin/pytest tests/contract tests/vendor
	$(MAKE) install EXTRAS=buy VENV=$(VENV)-buy
	$(VENV)-buy/bin/python scripts/check_isolation.py buy

test-lowest: ## both sides' tests with the lowest versions that pyproject.toml allows, in an environment of their own
	@command -v $(LOWEST_PYTHON) >/dev/null || { echo "test-lowest: $(LOWEST_PYTHON) is missing: the lowest versions are tested with the lowest Python. Install it, or say where it is: make test-lowest LOWEST_PYTHON=..." >&2; exit 1; }
	$(LOWEST_PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python scripts/lowest_versions.py vendor client local >$(VENV)-lowest/lowest.txt
	PIP_CONSTRAINT= $(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check --constraint $(VENV)-lowest/lowest.txt -e '.[vendor,client,local,test]'
	$(VENV)-lowest/bin/pytest --numprocesses $(TEST_PROCESSES) --dist worksteal tests/contract tests/client tests/vendor tests/e2e

docs: ## build the documentation site in build/site; a warning is an error
	$(MAKE) install EXTRAS=$(EXTRAS),docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html -c docs . build/site
	@echo "The site is build/site/index.html"

test-docs: ## the site, its links, and every command and program of its pages: about five minutes
	$(MAKE) install EXTRAS=$(EXTRAS),docs,onnx
	$(BIN)/pytest --pages tests/pages

test-wheel: install ## build the wheel and the source distribution, and install the wheel in an environment of its own
	$(BIN)/python scripts/check_wheel.py $(WHEEL_OPTIONS)

newcomer: install ## the tutorial on your own photographs, in a new environment: make newcomer PHOTOS=folder
	@test -n "$(PHOTOS)" || { echo 'newcomer: name a folder of photographs, class/file: make newcomer PHOTOS=photos' >&2; exit 2; }
	$(BIN)/python scripts/newcomer.py "$(PHOTOS)" $(NEWCOMER_OPTIONS)

test-export: ## the student's exports compared on 1,000 images, ONNX among them
	$(MAKE) install EXTRAS=$(EXTRAS),onnx
	VL2V_EXPORT_IMAGES=1000 $(BIN)/pytest tests/client/test_student_export.py tests/client/test_export_command.py

test-notebook: ## run the notebook of the documents
	$(MAKE) install EXTRAS=$(EXTRAS),notebook
	$(BIN)/pytest tests/notebook

test-browser: ## the vendor's pages and the reports in Chromium (`apt install chromium`), with axe; skipped by name without it
	$(MAKE) install EXTRAS=$(EXTRAS)$(comma)browser
	$(BIN)/pytest tests/browser

test-compose: ## build the images, run the compose files, one vendor and three, and the pod, half an hour; needs Docker
	@command -v $(DOCKER) >/dev/null || { echo "test-compose: $(DOCKER) is missing. It builds the images and runs them: apt install docker.io docker-cli docker-compose docker-buildx (Debian 13), or https://docs.docker.com/engine/install/" >&2; exit 1; }
	@$(DOCKER) compose version >/dev/null || { echo "test-compose: the command \`$(DOCKER) compose\` is missing: apt install docker-compose docker-buildx (Debian 13)" >&2; exit 1; }
	@$(DOCKER) info >/dev/null || { echo "test-compose: no Docker daemon answers; start it, or set DOCKER_HOST" >&2; exit 1; }
	$(MAKE) install
	$(BIN)/pytest --compose tests/compose

test-ray: ## sweeps of eight runs on every engine, Ray among them, and torchrun without its cache: minutes
	$(MAKE) install EXTRAS=$(EXTRAS)$(comma)ray
	$(BIN)/pytest --cluster tests/cluster

prove-short: install ## the proofs of bill and vendor with smaller counts: up to twenty minutes, no result files
	$(BIN)/python benchmarks/billing_proofs.py --short
	$(BIN)/python benchmarks/vendor_proofs.py --short

prove-billing: install ## the proofs of the bill at full length, and its benchmarks: about an hour
	$(BIN)/python benchmarks/billing_proofs.py
	$(BIN)/python benchmarks/ledger_throughput.py
	$(BIN)/python benchmarks/billing_overhead.py
	$(BIN)/python benchmarks/audit_million.py

prove-vendor: install ## poison, overload, vanished clients, a lost model, a soak: about three quarters of an hour of a quiet machine
	$(BIN)/python benchmarks/vendor_proofs.py

prove-strangers: install ## attacks with the port alone, with a budget of 0, by lying vendors and by files: about three quarters of an hour of a quiet machine
	$(BIN)/python benchmarks/stranger_proofs.py $(STRANGER_OPTIONS)

fuzz: install ## 100,000 changed inputs of each class, 20,000 pictures and raw requests; goes on where it was stopped: about an hour
	$(BIN)/python benchmarks/fuzz.py $(FUZZ_OPTIONS)

bench-vendor: install ## the vendor against the bare model and other servers: about ten minutes of a quiet machine
	$(BIN)/python benchmarks/vendor.py $(BENCH_OPTIONS)

demo: install ## vendor, data set, plan, distill, evaluate and audit on this machine: about three minutes
	$(BIN)/python benchmarks/demo.py

lock: ## the versions and hashes that the vendor's image installs, and the versions that CI does, in deploy/: before a release
	$(MAKE) install EXTRAS=deploy VENV=$(VENV)-deploy
	PATH="$(abspath $(VENV)-deploy/bin):$$PATH" $(VENV)-deploy/bin/python scripts/lock.py deploy/requirements.txt deploy/constraints.txt

sbom: install ## what a vendor's and a client's installation hold (CycloneDX, in dist/), for a release
	$(MAKE) install EXTRAS=vendor VENV=$(VENV)-sbom-vendor
	$(MAKE) install EXTRAS=client VENV=$(VENV)-sbom-client
	mkdir -p dist
	for side in vendor client; do $(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/vl2v-$$side.cdx.json $(VENV)-sbom-$$side || exit 1; done

clean: ## remove what the targets above made
	rm -rf $(VENV) $(VENV)-client $(VENV)-vendor $(VENV)-buy $(VENV)-lowest $(VENV)-deploy $(VENV)-sbom-vendor $(VENV)-sbom-client demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
