# make demo      heat maps of a real classifier on a real photo, from nothing
# make test      every check and every test, from nothing
# make lint      the checks alone
# make pictures  the pictures of README.md and docs/ anew
# make pins      requirements/*.txt anew, from pyproject.toml; needs uv
# make clean     removes what the others made
#
# Needs Python 3.11 or newer with pip, make and a package index. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
UV ?= uv
# the onnxruntime-training builder, inside the virtual environment unless it is installed elsewhere
export ONNX_GRADCAM_BUILDER ?= $(abspath $(VENV))/builder
# servers and their clients, likewise: they want protobuf below 7
export ONNX_GRADCAM_SERVING ?= $(abspath $(VENV))/serving

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet
MODEL := models/efficientnet_lite0.onnx
EXPORTED := demo/efficientnet_lite0.cam.onnx
PHOTO := models/photos/cameraman.jpg
CLASSES := --class tripod --class "reflex camera"

.PHONY: demo test lint pictures pins clean python-version

demo: $(MODEL) $(VENV)/.builder
	@mkdir -p demo
	$(BIN)/onnx-gradcam export $(MODEL) -o $(EXPORTED) --gradient-builder "$$(cat $(VENV)/.builder)" \
	  --preprocess efficientnet-lite --labels models/imagenet_classes.txt --force
	$(BIN)/onnx-gradcam explain $(EXPORTED) $(PHOTO) -o demo $(CLASSES) --force
	@echo
	@echo "Where the classifier looked on $(PHOTO):"
	@ls demo/*.png
	@echo "The exported model, for any ONNX Runtime: $(EXPORTED)"

test: lint $(MODEL) $(VENV)/.builder $(VENV)/.installed-serving
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

pictures: demo
	@mkdir -p docs/pictures
	$(BIN)/python -c 'import cv2; cv2.imwrite("docs/pictures/demo.jpg", cv2.imread("demo/cameraman.cam.png"))'
	$(BIN)/python tools/method_pictures.py

python-version:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' is not Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }

$(VENV)/.installed: requirements/run.txt pyproject.toml | python-version
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --require-hashes -r requirements/run.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt $(VENV)/.installed
	$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.installed-serving: requirements/serving.txt pyproject.toml | $(VENV)/.installed
	$(PYTHON) -m venv --clear $(ONNX_GRADCAM_SERVING)
	$(ONNX_GRADCAM_SERVING)/bin/python -m pip install --disable-pip-version-check --quiet \
	  --require-hashes -r requirements/serving.txt
	$(ONNX_GRADCAM_SERVING)/bin/python -m pip install --disable-pip-version-check --quiet \
	  --no-deps --no-build-isolation -e .
	@touch $@

$(MODEL): | $(VENV)/.installed
	$(BIN)/python tools/make_models.py

# onnxruntime-training ends at Python 3.12. A newer Python borrows an older one for the builder; where
# there is none, the built-in builder serves. The file holds the name of the one to use.
$(VENV)/.builder: $(VENV)/.installed
	@for python in $(BIN)/python python3.12 python3.11 python3.10 python3.9 none; do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info >= (3, 13))' 2>/dev/null && break; done; \
	if [ "$$python" = none ]; then \
	  echo "note: no Python up to 3.12 for onnxruntime-training, so the built-in builder it is"; \
	  echo reverse > $@; \
	else \
	  echo $(BIN)/onnx-gradcam setup-builder --python "$$python"; \
	  $(BIN)/onnx-gradcam setup-builder --python "$$python" && echo onnxruntime-training > $@; \
	fi

# --universal: one file for every Python and system; never the address of an index in it
PINS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --extra cpu --extra export
pins:
	$(UV) pip compile pyproject.toml $(PINS) --extra batch --extra notebook --extra ray --group dev --quiet -o requirements/dev.txt
	$(UV) pip compile pyproject.toml $(PINS) --group build -c requirements/dev.txt --quiet -o requirements/run.txt
	$(UV) pip compile pyproject.toml $(PINS) --group build --group serving --quiet -o requirements/serving.txt

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
