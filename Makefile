# Sluice: one non-recursive Makefile. Sources are found by pattern; header dependencies are exact (-MMD).
#   make                         the program at build/sluice
#   make SANITIZE=address,undefined check     a variant, under build/gcc-address,undefined
#   make CC=clang build                       a variant, under build/clang
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build
SHELL := /bin/bash
V ?=
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))
export LC_ALL := C.UTF-8

ifeq ($(origin CC),default)
CC := gcc
endif
SANITIZE ?=
COVERAGE ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
PREFIX ?= /usr/local
variant := $(CC)$(if $(SANITIZE),-$(SANITIZE))$(if $(COVERAGE),-coverage)
BUILD ?= build/$(variant)
JOBS ?= $(shell nproc)

libraries := libuv libcurl jansson yaml-0.1 openssl rdkafka libcares zlib libnghttp2
llhttp_dir := /usr/share/llhttp

# ---- compiler -------------------------------------------------------------------------------------------------------------------------
warnings := -Wall -Wextra -Wshadow -Wconversion -Werror -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wpointer-arith \
	-Wwrite-strings -Wswitch-enum -Wimplicit-fallthrough
hardening := -fstack-protector-strong -fPIE -fno-delete-null-pointer-checks $(if $(SANITIZE)$(COVERAGE),,-D_FORTIFY_SOURCE=2) \
	$(if $(findstring gcc,$(CC)),-fstack-clash-protection -fcf-protection)
optimise := $(if $(SANITIZE)$(COVERAGE),-O1 -fno-omit-frame-pointer,-O2)
instrument := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all) $(if $(COVERAGE),--coverage -fprofile-update=atomic)
package_cflags := $(shell pkg-config --cflags $(libraries) 2>/dev/null)
package_libs := $(shell pkg-config --libs $(libraries) 2>/dev/null)
# Debian 12 has no description of libjq for pkg-config.
package_libs += -ljq
CFLAGS ?= -g
all_cflags = -std=gnu11 -D_GNU_SOURCE -Ipkg -Icmd -I. $(warnings) $(hardening) $(optimise) $(instrument) \
	$(filter-out -I/usr/include,$(package_cflags)) $(CFLAGS)
# Only one file knows the version, so that a commit does not rebuild all; it is compiled again when that changes.
$(BUILD)/cmd/sluice/version.o: $(BUILD)/version
$(BUILD)/cmd/sluice/version.o: CFLAGS += -DSLUICE_VERSION='"$(VERSION)"'
all_ldflags = -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(instrument) $(LDFLAGS)

# Debian 12 ships llhttp as sources, Debian 13 as a library.
ifneq ($(wildcard $(llhttp_dir)/llhttp.c),)
llhttp_objects := $(BUILD)/llhttp/llhttp.o $(BUILD)/llhttp/http.o $(BUILD)/llhttp/api.o
all_cflags += -isystem /usr/share/include/llhttp
else
package_libs += $(shell pkg-config --libs libllhttp 2>/dev/null || echo -lllhttp)
endif

# ---- files ----------------------------------------------------------------------------------------------------------------------------
# The driver of DDS is a module of its own: libmongoc and what it brings along are loaded where they are used.
module_sources := $(wildcard pkg/source/dds/driver/*.c)
library_sources := $(filter-out %_test.c $(module_sources),$(shell find pkg -name '*.c' | sort))
command_sources := $(filter-out %_test.c,$(wildcard cmd/sluice/*.c))
test_sources := $(shell find pkg cmd tests -name '*_test.c' 2>/dev/null | sort)
simulator_sources := $(wildcard tests/sim/*.c)
support_sources := $(wildcard tests/support/*.c)
objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
tests := $(patsubst %.c,$(BUILD)/%,$(test_sources))
archive := $(BUILD)/libsluice.a
module := $(BUILD)/sluice-dds.so

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(all_cflags) -MMD -MP -c -o $@ $<

$(BUILD)/version: always
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@

.PHONY: always

$(BUILD)/llhttp/%.o: $(llhttp_dir)/%.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) -std=gnu11 -O2 -fPIE -DLLHTTP_STRICT_MODE=1 -I/usr/share/include/llhttp $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -w -c -o $@ $<

$(archive): $(call objects,$(library_sources)) $(llhttp_objects)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/sluice: $(call objects,$(command_sources)) $(archive)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(package_libs) -lm

mongoc_cflags := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libmongoc-1.0 2>/dev/null))
$(call objects,$(module_sources)): CFLAGS += -fPIC -fvisibility=hidden $(mongoc_cflags)
$(module): $(call objects,$(module_sources))
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(instrument) $(LDFLAGS) -o $@ $^ $(shell pkg-config --libs libmongoc-1.0 2>/dev/null)

$(BUILD)/generate: $(BUILD)/tools/generate.o $(archive)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(package_libs) -lm

# So that an engine can run out of memory, and a seed replays exactly (tests/sim/memory.c).
simulator_ldflags := $(foreach name,malloc calloc realloc reallocarray strdup table_seed,-Wl,--wrap=$(name))
$(BUILD)/sim: $(call objects,$(simulator_sources)) $(archive)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) $(simulator_ldflags) -o $@ $^ $(package_libs) -lm

# librdkafka's C11 threads, where ThreadSanitizer sees them.
thread_objects := $(if $(findstring thread,$(SANITIZE)),$(BUILD)/tests/tsan/threads.o)

# What tests share.
support := $(BUILD)/libsupport.a
$(support): $(call objects,$(support_sources))
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^

# A test may run out of memory, too.
test_ldflags := $(foreach name,malloc calloc realloc reallocarray strdup,-Wl,--wrap=$(name))
$(tests): $(BUILD)/%: $(BUILD)/%.o $(thread_objects) $(call objects,tests/sim/memory.c) $(support) $(archive)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) $(test_ldflags) -o $@ $^ $(package_libs) -lcmocka -lm

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
.SECONDARY:

# ---- targets --------------------------------------------------------------------------------------------------------------------------
.PHONY: deps build demo check test soak test-mutants weather e2e bench lint format image install clean help unit simulate integration generate sanitized coverage program

deps: ## install what the build and the tests need (Debian packages)
	tools/deps all

program: $(BUILD)/sluice $(module)
build: ## compile the program: build/sluice
	@tools/deps build
	@+$(MAKE) --no-print-directory -j$(JOBS) program
	@mkdir -p build && ln -sfn $(patsubst build/%,%,$(BUILD))/sluice build/sluice

demo: build ## run the example Triggers on real input and show the events arriving
	tools/demo

check: build ## the fast inner loop: build, unit tests, simulator, lint
	@tools/deps test
	@+$(MAKE) --no-print-directory -j$(JOBS) $(tests) $(BUILD)/sim $(BUILD)/generate
	@+$(MAKE) --no-print-directory unit simulate SEEDS=$(or $(SEEDS),3000)
	@+$(MAKE) --no-print-directory lint

# The image that the end-to-end tests install. SLUICE_IMAGE names another one.
e2e_image := build/image/sluice-e2e.oci.tar
$(e2e_image): $(library_sources) $(command_sources) $(module_sources) $(shell find pkg cmd -name '*.h') Makefile tools/image tools/deps tools/versions
	tools/image -t e2e -o $@

# Downloads wait for the network and compiling for the processor: both at once. Whatever fails is told when both have ended.
.PHONY: prepare test-programs
prepare: build ## fetch, build and compile all that `make test` needs, before its first test
	@tools/deps test
	@+tools/prefetch & fetching=$$!; $(MAKE) --no-print-directory test-programs; built=$$?; wait $$fetching && exit $$built
	@+$(MAKE) --no-print-directory $(e2e_image)

test-programs:
	@+$(MAKE) --no-print-directory -j$(JOBS) $(tests) $(BUILD)/sim $(BUILD)/generate filter-programs
	@+$(MAKE) --no-print-directory -j$(JOBS) CC=clang SANITIZE=address,undefined sanitized-programs
	@+$(MAKE) --no-print-directory -j$(JOBS) CC=clang SANITIZE=thread threads-programs
	@+$(MAKE) --no-print-directory -j$(JOBS) CC=clang SANITIZE=fuzzer-no-link,address,undefined fuzz-programs

test: prepare ## everything: unit tests, the same under sanitizers and clang, integration, end to end
	@+$(MAKE) --no-print-directory check
	@+$(MAKE) --no-print-directory simulate SEEDS=$(or $(SEEDS),40000)
	@+$(MAKE) --no-print-directory fuzz SECONDS=$$((60 / $(words $(fuzz_names))))
	@+$(MAKE) --no-print-directory test-mutants sanitized
	@+$(MAKE) --no-print-directory weather SECONDS=90
	@+$(MAKE) --no-print-directory servers-and-node

# The node waits more than it works: both at once. What its tests print comes when both have ended.
.PHONY: servers-and-node
servers-and-node: build
	@+told=$$(mktemp); $(MAKE) --no-print-directory e2e >$$told 2>&1 & node=$$!; $(MAKE) --no-print-directory integration; servers=$$?; \
	wait $$node; node=$$?; cat $$told; rm -f $$told; exit $$((servers | node))

unit: $(tests) ## the unit tests (cmocka)
	tools/run-tests $(tests)

simulate: $(BUILD)/sim ## the simulator of the delivery engine and of the reader over many seeds
	$(BUILD)/sim --seeds=$(or $(SEEDS),5000)
	$(BUILD)/sim --reader --seeds=$(or $(SEEDS),5000)

soak: $(BUILD)/sim ## the simulator from a random seed on, then bad weather, for SECONDS= (600) each; five million messages of Kafka
	$(BUILD)/sim --seconds=$(or $(filter-out 0,$(SECONDS)),600)
	$(BUILD)/sim --reader --seconds=$(or $(filter-out 0,$(SECONDS)),600)
	@+$(MAKE) --no-print-directory weather SECONDS=$(or $(filter-out 0,$(SECONDS)),600)
	SLUICE_CHAOS=5000000 "$$(tools/venv)/bin/pytest" -q tests/integration/test_kafka_chaos.py

test-mutants: $(BUILD)/sim ## does the simulator notice when the engine or the reader is wrong? MUTANT= picks some
	@CC="$(CC)" CFLAGS="$(all_cflags)" LDFLAGS="$(all_ldflags) $(simulator_ldflags)" LIBRARIES="$(package_libs) -lm" JOBS=$(JOBS) tools/mutants $(BUILD)

sanitized: ## unit tests and simulator under AddressSanitizer and UBSan, built by clang; the threads' tests under TSan
	@+$(MAKE) --no-print-directory -j$(JOBS) CC=clang SANITIZE=address,undefined sanitized-programs
	@+$(MAKE) --no-print-directory CC=clang SANITIZE=address,undefined unit simulate SEEDS=1000
	@+$(MAKE) --no-print-directory -j$(JOBS) CC=clang SANITIZE=thread threads-programs
	@TSAN_OPTIONS="suppressions=tests/tsan/suppressions halt_on_error=1 ignore_noninstrumented_modules=1" $(MAKE) --no-print-directory CC=clang SANITIZE=thread threads

# The tests in which more than one thread is at work.
threaded := $(BUILD)/pkg/source/dds/dds_test $(BUILD)/pkg/base/loop_test $(BUILD)/pkg/base/helper_test $(BUILD)/pkg/api/pattern_test $(BUILD)/pkg/source/kafka/kafka_test $(BUILD)/pkg/checkpoint/filestore_test
.PHONY: threads threads-programs
threads-programs: $(threaded)
threads: threads-programs
	tools/run-tests $(threaded)

.PHONY: sanitized-programs coverage-programs bench-programs
sanitized-programs coverage-programs: $(tests) $(BUILD)/sim $(BUILD)/sluice $(module)

coverage: ## line coverage of pkg/ by the unit tests and the simulator
	@+$(MAKE) --no-print-directory -j$(JOBS) COVERAGE=1 coverage-programs
	@find build/gcc-coverage -name '*.gcda' -delete
	@+$(MAKE) --no-print-directory COVERAGE=1 unit simulate SEEDS=1000 >/dev/null
	@gcovr -r . --object-directory build/gcc-coverage -f pkg/ -e '.*_test\.c' --gcov-ignore-parse-errors -s 2>/dev/null | awk '/^(pkg|TOTAL)/ { printf "%-40s %6s %6s %5s\n", $$1, $$2, $$3, $$4 } /^lines/'

.PHONY: filter-programs
$(BUILD)/filter-pairs: $(BUILD)/tests/filter/filter_pairs.o $(archive)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(package_libs) -lm

$(BUILD)/next-runs: $(BUILD)/tests/cron/next_runs.o $(archive)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) -o $@ $^ $(package_libs) -lm

filter-programs: $(BUILD)/filter-pairs $(BUILD)/next-runs
	@for name in filter-pairs next-runs; do ln -sfn $(patsubst build/%,%,$(BUILD))/$$name build/$$name; done

integration: build ## the program against real servers (pytest)
	@tools/deps test
	@tools/prefetch
	@+$(MAKE) --no-print-directory filter-programs
	"$$(tools/venv)/bin/pytest" -q -n 2 --dist loadfile tests/integration

weather: build ## many Triggers in bad weather for SECONDS= (90): falling functions, a broker and an API server that go away, ageing connections
	@tools/deps test
	@tools/prefetch
	WEATHER_SECONDS=$(or $(filter-out 0,$(SECONDS)),90) "$$(tools/venv)/bin/pytest" -q tests/weather

e2e: build ## the whole product on a real Kubernetes node (pytest)
	@tools/deps test
	@tools/prefetch
	@+$(if $(SLUICE_IMAGE)$(KUBECONFIG),,$(MAKE) --no-print-directory $(e2e_image))
	"$$(tools/venv)/bin/pytest" -q e2e

# Each file of fuzz/ is a target of libFuzzer; fuzz/corpus/NAME is where it begins, build/fuzz/NAME keeps what it found. With the tests they take a minute together.
fuzz_names := $(patsubst fuzz/%.c,%,$(wildcard fuzz/*.c))
# They count the blocks that they run, which tells what an input costs (fuzz/cost.c).
ifneq ($(findstring fuzzer,$(SANITIZE)),)
all_cflags += -fsanitize-coverage=trace-pc
endif
$(BUILD)/fuzz/%: $(BUILD)/fuzz/%.o $(BUILD)/fuzz/lib/steps.o $(archive)
	$(call say,LD,$@)
	$(Q)$(CC) $(all_ldflags) -fsanitize=fuzzer -Wl,--wrap=__sanitizer_cov_trace_pc -o $@ $^ $(package_libs) -lm

.PHONY: fuzz fuzz-programs $(fuzz_names:%=fuzz-run-%)
fuzz-programs: $(fuzz_names:%=$(BUILD)/fuzz/%)
$(fuzz_names:%=fuzz-run-%): fuzz-run-%: $(BUILD)/fuzz/%
	@mkdir -p build/fuzz/$* fuzz/corpus/$*
	@$(BUILD)/fuzz/$* -max_total_time=$(or $(SECONDS),10) -max_len=$(if $(filter cost,$*),65536,8192) -timeout=10 -print_final_stats=1 -verbosity=0 \
		-artifact_prefix=build/fuzz/$*- build/fuzz/$* fuzz/corpus/$* >build/fuzz/$*.log 2>&1 || { cat build/fuzz/$*.log; exit 1; }
	@awk '/^stat::number_of_executed_units/ { runs = $$2 } /^stat::new_units_added/ { new = $$2 } \
		END { printf "fuzz %-18s %s s, %s runs, %s new\n", "$*", "$(or $(SECONDS),10)", runs, new }' build/fuzz/$*.log

fuzz: ## run each target of fuzz/ for SECONDS (10), under ASan and UBSan, built by clang
	@+$(MAKE) --no-print-directory -j$(JOBS) CC=clang SANITIZE=fuzzer-no-link,address,undefined fuzz-programs
	@+$(MAKE) --no-print-directory -j$(JOBS) CC=clang SANITIZE=fuzzer-no-link,address,undefined $(fuzz_names:%=fuzz-run-%) $(if $(SECONDS),SECONDS=$(SECONDS))

$(BUILD)/bench-%: bench/%.c Makefile
	$(call say,CC,$<)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 $(warnings) -o $@ $< -lnghttp2 -lssl -lcrypto -lrdkafka

bench-programs: $(BUILD)/bench-sink $(BUILD)/bench-load
	@for name in sink load; do ln -sfn $(patsubst build/%,%,$(BUILD))/bench-$$name build/bench-$$name; done

bench: build ## measure beside Benthos and nginx: events per second and CPU-second, memory, latency, crashes
	@tools/deps test
	@tools/deps bench
	@+$(MAKE) --no-print-directory bench-programs
	"$$(tools/venv)/bin/python" bench/bench.py $(BENCH)

generate: $(BUILD)/generate ## write the CRD, the chart's copy and the reference from the field tables, and the table of the cloud's endpoints
	$(BUILD)/generate crd >crds/triggers.sluice.dev.yaml
	$(BUILD)/generate chart-crd >charts/sluice/templates/crd.yaml
	$(BUILD)/generate reference >docs/reference.md
	tools/endpoints >pkg/huawei/endpoints_table.c

# The analyzer follows each path of a file; its idea of lists that free their first element is wrong, and ASan watches those.
$(BUILD)/%.analyzed: %.c $(BUILD)/%.o
	$(call say,CHECK,$<)
	$(Q)clang --analyze --analyzer-output text -Xclang -analyzer-werror -Xclang -analyzer-disable-checker -Xclang unix.Malloc -std=gnu11 -D_GNU_SOURCE \
		-DSLUICE_VERSION='"x"' -Ipkg -Icmd -I. -isystem /usr/share/include/llhttp $(mongoc_cflags) $< -o /dev/null && touch $@

.PHONY: analyze
analyze: $(patsubst %.c,$(BUILD)/%.analyzed,$(library_sources) $(command_sources) $(module_sources))

lint: $(BUILD)/generate ## generated files are fresh, layers hold, shell and C are clean
	@+$(MAKE) --no-print-directory -j$(JOBS) analyze
	tools/lint $(BUILD)/generate

format: ## lay out the C sources with clang-format 14, the Python sources with ruff
	clang-format-14 -i $(shell find pkg cmd tests bench tools fuzz -name '*.[ch]')
	"$$(tools/venv)/bin/ruff" format --quiet .

image: ## make the OCI archive build/image/sluice.oci.tar and print its size
	@tools/deps test
	tools/image $(IMAGE)

install: build ## install the program and its module: PREFIX=/usr/local DESTDIR=
	install -D -m 755 build/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	install -D -m 755 $(module) $(DESTDIR)$(PREFIX)/lib/sluice/sluice-dds.so

clean: ## remove build/
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
