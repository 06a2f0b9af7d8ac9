# Works on a fresh machine with nothing but make and Python 3.11 or newer: the first use makes .venv
# and installs into it with pip and pip's own configuration; scripts/setup_env.py explains what is
# missing when it cannot. PYTHON=/path/to/python chooses the interpreter, ARGS=... is passed on, and
# DATABASE=postgres://... or mysql://... is where the tests make their database instead of in a file. The
# demo takes the same, an empty database of its own, and BROKER=redis://... for Celery.

.DEFAULT_GOAL := help
.PHONY: help .venv demo test chaos bench lint messages screenshots

PYTHON ?=
ARGS ?=
EXTRAS ?= example
DATABASE ?=
BROKER ?=
DRIVER = $(if $(filter mysql%,$(DATABASE)),mysql)$(if $(filter postgres% pgsql%,$(DATABASE)),postgres)
VENV_PYTHON := .venv/bin/python

# Any Python can run the setup script, which then looks for a good one and says so if there is none.
define setup
@for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1 || continue; \
	exec "$$p" scripts/setup_env.py --python "$(PYTHON)" --extras $(1); \
done; \
echo 'No Python was found. Install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv;' >&2; \
echo 'macOS: brew install python), or name one: make $@ PYTHON=/path/to/python3.12' >&2; \
exit 1
endef

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

.venv:
	$(call setup,$(EXTRAS))

demo: ## run the whole life of face verifications on this machine (ARGS=--once: end by itself)
	$(call setup,example $(DRIVER) $(if $(BROKER),redis))
	@$(VENV_PYTHON) manage.py faceprint_demo $(if $(DATABASE),--database '$(DATABASE)') \
		$(if $(BROKER),--broker '$(BROKER)') $(ARGS)

test: ## run the tests with what is on this machine
	$(call setup,example test $(DRIVER))
	@$(if $(DATABASE),FACEPRINT_TEST_DATABASE='$(DATABASE)') $(VENV_PYTHON) -m pytest -n 2 --dist loadfile $(ARGS)

bench: ## compare the engine with curl and a requests loop (ARGS: archive, memory, celery …, --help)
	$(call setup,example postgres redis $(if $(findstring claims,$(ARGS)),mysql))
	@$(VENV_PYTHON) -m benchmarks $(or $(ARGS),archive)

chaos: ## let everything fail around the engine and see whether anything is lost (ten minutes)
	$(call setup,example redis postgres)
	@$(VENV_PYTHON) -m chaos $(ARGS)

lint: ## check style and types
	$(call setup,example test lint)
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy

CATALOGUE := locale/zh_Hans/LC_MESSAGES/django
messages: ## collect the texts to be translated into the Chinese catalogue, and compile it
	$(call setup,example)
	@cd django_faceprint && env -u DJANGO_SETTINGS_MODULE ../$(VENV_PYTHON) -m django makemessages --locale zh_Hans \
		--no-obsolete --no-wrap --add-location file --ignore assets
	@cd django_faceprint && msgattrib --no-obsolete --no-wrap --sort-output --add-location=file $(CATALOGUE).po | \
		sed '/^"POT-Creation-Date: /d; /^"Report-Msgid-Bugs-To: /d' >$(CATALOGUE).new && mv $(CATALOGUE).new $(CATALOGUE).po
	@cd django_faceprint && msgfmt --check-format --output-file $(CATALOGUE).mo $(CATALOGUE).po

screenshots: ## run the browser tests and keep their pictures in screenshots/, those of the console in docs/screenshots/
	$(call setup,example test)
	@$(VENV_PYTHON) -m pytest tests/browser --screenshots screenshots $(ARGS)
	@$(VENV_PYTHON) scripts/keep_pictures.py docs/screenshots screenshots/console-*.png screenshots/dashboard-desktop-*.png
