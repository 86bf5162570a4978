# The two commands: make demo, make test. Both install what they need first, into .venv.

PY = .venv/bin/python

.PHONY: demo test soak screenshots bench lint format install lock clean

demo: install
	@.venv/bin/jand demo

test: install
	@.ci/system-programs
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

soak: install
	@.ci/system-programs
	@$(PY) -m pytest --soak --timeout=7200 -m soak

# Pictures of the page in each of its states, to be looked at: build/screenshots.
screenshots: install
	@.ci/system-programs
	@$(PY) -m pytest -q tests/e2e/test_page_pictures.py --pictures=build/screenshots && ls build/screenshots

bench: install
	@for file in tests/bench/bench_*.py; do echo "== $$file"; $(PY) -m "tests.bench.$$(basename $$file .py)" || exit 1; done

lint: install
	@$(PY) -m pytest -q tests/unit/test_checks.py

format: install
	@.venv/bin/ruff check -q --fix jand tests && .venv/bin/ruff format -q jand tests

install:
	@.ci/install

# The constraints file anew, from pyproject.toml: exact versions and the hashes of all their files, no addresses.
lock:
	@.ci/lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
