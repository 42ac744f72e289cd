# make help lists what there is to make. Each target installs what it needs first (scripts/install-deps).
PRESET ?= release
BUILD := build/$(PRESET)
PARE := $(BUILD)/cli/pare
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
SECONDS ?= 120
DEMO_TIME ?= 150
CPP_FILES = $(shell git ls-files '*.cc' '*.h')

.PHONY: help build demo test check bench fuzz format install deb arm clean
help:
	@echo 'make build     build $(PARE)'
	@echo 'make demo      build, then shrink the bundled model and show what each step cost and gained'
	@echo 'make test      build, then run every test (about 20 minutes on 2 cores from scratch)'
	@echo 'make check     test + lint, sanitizers, fuzzing, ARM (about an hour); what CI runs'
	@echo 'make bench     build and run the benchmarks'
	@echo 'make fuzz      fuzz every parser for SECONDS=120 and report coverage'
	@echo 'make arm       cross-compile static binaries for 64-bit ARM into build/aarch64'
	@echo 'make format    format the C++ sources'
	@echo 'make install   install under PREFIX=/usr/local (DESTDIR is honoured)'
	@echo 'make deb       make a Debian package in $(BUILD)'
	@echo 'make clean     remove build/ and out/'

# Tests stay as they were configured, so that build and test can take turns without building anything twice.
build:
	scripts/install-deps build
	test -f $(BUILD)/build.ninja || cmake --preset $(PRESET) -DPARE_TESTS=OFF
	cmake --build $(BUILD) -j $(JOBS) --target pare

demo: build
	mkdir -p out
	$(PARE) shrink models/story -o out/story-small.gguf --report out/report --time $(DEMO_TIME)
	@echo
	@echo 'Report: $(CURDIR)/out/report/index.html'
	@echo 'The shrunk model writes:'
	@echo
	$(PARE) run out/story-small.gguf -p 'Once upon a time' -n 150 --seed 1

test:
	scripts/install-deps test
	cmake --preset $(PRESET) -DPARE_TESTS=ON
	cmake --build $(BUILD) -j $(JOBS)
	ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure --no-tests=error
	@echo 'make test: every test passed.'

check:
	scripts/install-deps check
	scripts/check

bench:
	scripts/install-deps bench
	cmake --preset $(PRESET) -DPARE_BENCH=ON
	cmake --build $(BUILD) -j $(JOBS)
	scripts/bench $(BUILD)

fuzz:
	scripts/install-deps check
	MIN_COVERAGE=80 scripts/fuzz $(SECONDS)

arm:
	scripts/install-deps check
	scripts/arm-sysroot build/arm-sysroot
	cmake --preset aarch64
	cmake --build build/aarch64 -j $(JOBS)

format:
	scripts/install-deps format
	clang-format-16 -i $(CPP_FILES)

install: build
	cmake --install $(BUILD) --prefix $(PREFIX)

deb: build
	scripts/install-deps deb
	cd $(BUILD) && cpack -G DEB

clean:
	rm -rf build out
