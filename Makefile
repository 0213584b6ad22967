# Every target does its own set-up. `make run` and `make test` are what the README promises.

CARGO ?= cargo
DIR ?= var
PREFIX ?= /usr
DESTDIR ?=

.PHONY: help run test check stress bench install

help:
	@echo "make run      build, start every daemon with a demo domain; Ctrl-C ends it (DIR=var)"
	@echo "make test     everything that CI runs"
	@echo "make check    formatting, lints, documentation, dependency policy"
	@echo "make stress   ten minutes of random clients against a model"
	@echo "make bench    figures, beside Postfix and Dovecot where they are installed"
	@echo "make install  the program, units, completions and manual pages (DESTDIR=, PREFIX=/usr)"

run:
	$(CARGO) build --quiet -p posthouse
	@mkdir -p $(DIR)
	target/debug/posthouse --dir $(DIR) up --demo

test:
	tests/run

check:
	tests/run check

stress:
	POSTHOUSE_STRESS_SECONDS=$${SECONDS:-600} tests/run stress

bench:
	tests/setup --bench
	$(CARGO) build --release -p posthouse -p perf
	target/release/perf --json target/perf.json --markdown target/perf.md $(BENCH)

install:
	$(CARGO) build --locked --profile dist -p posthouse
	install -D -m 755 target/dist/posthouse $(DESTDIR)$(PREFIX)/bin/posthouse
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 contrib/systemd/*.service contrib/systemd/*.socket $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -D -m 644 contrib/systemd/sysusers.d/posthouse.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/posthouse.conf
	install -D -m 644 contrib/systemd/tmpfiles.d/posthouse.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/posthouse.conf
	target/dist/posthouse man --out $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	target/dist/posthouse completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/posthouse
	install -d $(DESTDIR)/etc/posthouse
	test -e $(DESTDIR)/etc/posthouse/posthouse.toml || target/dist/posthouse config example > $(DESTDIR)/etc/posthouse/posthouse.toml
