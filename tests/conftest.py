"""Suites for tests: one that a whole file shares, and as many of one's own as one likes."""

import itertools
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "lib"))

from suite import Suite  # noqa: E402

_living = []
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared():
    """A running suite with the domain example.test; tests of one file share it and use accounts of their own."""
    suite = Suite()
    _living.append(suite)
    suite.start()
    suite.add_domain("example.test")
    yield suite
    _living.remove(suite)
    suite.remove()


@pytest.fixture
def account(shared, request):
    """A new account in the shared suite."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-").lower()[:40].rstrip("-")
    return shared.add_account(f"{name}-{next(_numbers)}@example.test")


@pytest.fixture
def make_suite():
    """Makes suites; all are stopped and removed at the end."""
    made = []

    def make(start=True, **options):
        suite = Suite(**options)
        made.append(suite)
        _living.append(suite)
        if start:
            suite.start()
        return suite

    yield make
    for suite in made:
        _living.remove(suite)
        suite.remove()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the end of the logs of the suites that run."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for suite in _living:
            report.sections.append((f"log of {suite.dir}", suite.tail(60)))
