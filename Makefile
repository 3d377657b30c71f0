# The front door; CMake and the scripts in tools/ do the work. `make` lists what there is.
PREFIX ?= /usr/local
BUILD := build
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

.PHONY: help deps deps-test build zoo run test fuzz chaos bench bench-peers check format install deb deb-test clean distclean

help: ## this list
	@printf 'xInfer: a runtime that serves neural models. Begin with\n\n    make run\n\n'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'
	@printf '\nWhat has been built lies in build/: programs in bin/, engines in lib/xinfer/, packages in zoo/.\n'

deps: ## install the missing Debian packages, fetch pinned parts into build/deps
	@deps/apt build zoo
	@deps/fetch build zoo

deps-test: deps
	@deps/apt build zoo test fuzz
	@deps/fetch

build: deps ## build xinferd, xinfer, xinfer-host and the engines
	@tools/build release programs

zoo: build ## pack the zoo's models: build/zoo/object-detector.xpkg
	@tools/pack-zoo

run: zoo ## show it: detect objects in photographs (PICTURE=path for your own)
	@tools/run-demo $(if $(PICTURE),'$(PICTURE)')

test: deps-test ## run all tests, plain and under sanitizers; ends with the count
	@tools/test

fuzz: deps ## fuzz all parsers with clang's libFuzzer, FUZZ_SECONDS=600 each
	@deps/apt build fuzz
	@tests/fuzz/run

chaos: build ## kill hosts and the daemon under load, CHAOS_ROUNDS=100 times each
	@deps/apt build zoo test
	@CHAOS_ROUNDS=$${CHAOS_ROUNDS:-100} /usr/bin/python3 -m pytest -q -p no:cacheprovider \
		-o timeout=3600 tests/integration/test_chaos.py

bench: zoo ## measure the figures of the README
	@tools/build release
	@bench/run

bench-peers: deps ## measure beside other servers, set up from PyPI (900 MB); PEERS='--rounds 5 …'
	@deps/apt build peers
	@deps/fetch build peers
	@deps/peers
	@tools/build release
	@bench/peers/run --json $(BUILD)/bench-peers.json $(PEERS)

check: ## check the house rules: rooms, banned calls, limits, format
	@tools/check

format: ## lay out the C sources as .clang-format says
	@tools/sources | xargs clang-format-14 -i

install: ## install below DESTDIR and PREFIX (/usr/local)
	@[ -x $(BUILD)/bin/xinferd ] || $(MAKE) build
	@DESTDIR='$(DESTDIR)' cmake --install $(BUILD) --prefix '$(PREFIX)'

deb: build ## make a Debian package: build/xinfer_VERSION_ARCH.deb
	@deps/apt deb
	@tools/make-deb

deb-test: zoo ## install, upgrade, remove and purge that package in a bare Debian of its own
	@deps/apt build deb deb-test zoo test
	@deps/fetch
	@tools/test-deb "$$(tools/make-deb)"

clean: ## remove what was built; what was fetched stays
	@if [ -d $(BUILD) ]; then find $(BUILD) -mindepth 1 -maxdepth 1 ! -name deps -exec rm -rf {} +; fi

distclean: ## remove what was built and what was fetched
	@rm -rf $(BUILD)
