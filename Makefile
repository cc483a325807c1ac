# Two commands do all set-up: `make demo` and `make test`. See README.md.

PYTHON ?= python3
# Real images and published models for the thorough tests; CI sets it. Where it is absent those
# tests are listed as ignored.
GAUNTLET_SHARED ?= $(abspath $(wildcard ../shared))
export GAUNTLET_SHARED

.PHONY: demo test setup build lint bench clean

demo: build
	target/debug/gauntlet run suites/demo.yaml

test: setup
ifeq ($(strip $(GAUNTLET_SHARED)),)
	cargo test
else
	cargo test -- --include-ignored
endif

build: setup
	cargo build

setup:
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "error: no $(PYTHON)"; echo "  mend: install Python 3 with pip (apt-get install python3-pip), or set PYTHON"; exit 1; }
	@cargo --version >/dev/null 2>&1 || { echo "error: no cargo"; echo "  mend: install Rust 1.95 or newer from https://rustup.rs"; exit 1; }
	@c++ --version >/dev/null 2>&1 || { echo "error: no C++ compiler"; echo "  mend: apt-get install g++ make"; exit 1; }
	@$(PYTHON) tools/libtorch.py

lint: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench: setup
	cargo bench

clean:
	cargo clean
	rm -rf .gauntlet out
