# make setup   virtual environment with everything, exact versions
# make demo    VDFD against fine-tuning on the embedded images, with matrices, curves and run records
# make test    all tests
# make report  one HTML file: tables, claims, curves, deviations, provenance (site/index.html; minutes)
# make bench   speed ratios against the literal formulas; SAVE=--save keeps them for the READMEs (then: repro readme)
# make abn     the compiled package inplace_abn, for --norm_act pkg_iabn and pkg_iabn_sync (segmentation); setup tries it
# make lint    style

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: report setup abn demo test bench lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@echo "trying to build inplace-abn, a minute or more"
	@PYTHON="$(abspath $(BIN))/python" sh tools/build_inplace_abn.sh >$(VENV)/abn.log 2>&1 || tail -n 1 $(VENV)/abn.log
	touch $(STAMP)

abn: setup
	PYTHON="$(abspath $(BIN))/python" sh tools/build_inplace_abn.sh

demo: setup
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/repro run vdfd/demo-ti vdfd/demo-ti-finetuning --out outputs/demo
	$(BIN)/repro compare outputs/demo/vdfd/demo-ti/seed0/record.json outputs/demo/vdfd/demo-ti-finetuning/seed0/record.json \
		--plots outputs/demo/plots --expect acc=8 --expect bwt=20

# one process per core, one thread each: the tests' networks are small; a file's tests stay together
test: setup
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# replays every recorded number and runs the tests of the claims about code first
report: setup
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/repro report

bench: setup
	$(BIN)/python -m benchmarks.vdfd $(SAVE)
	$(BIN)/python -m benchmarks.cudfkd $(SAVE)
	$(BIN)/python -m benchmarks.rfd $(SAVE)
	$(BIN)/python -m benchmarks.lra $(SAVE)
	$(BIN)/python -m benchmarks.prompt_distill $(SAVE)
	$(BIN)/python -m benchmarks.segmentation $(SAVE)

lint: setup
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) outputs build dist *.egg-info
