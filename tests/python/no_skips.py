"""A pytest plugin (pytest -p no_skips): a test that did not run proves nothing, so a skip is a failure."""

import pytest

REASON = "skipped and expected-to-fail tests are failures here: make the test run, or delete it"


def pytest_configure(config):
    config.addinivalue_line("markers", "reference: compares with a Python reference; slow, left out under sanitizers")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.outcome == "skipped" or hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {REASON} ({report.longrepr})"
        vars(report).pop("wasxfail", None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    if report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {REASON} ({report.longrepr})"
    return report
