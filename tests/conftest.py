"""Markers of the whole suite; the fixtures live beside the tests that use them."""

import gc
import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Processes that are given the same empty folder share the tests: each takes the next file that is left.
SHARE = os.environ.get("M2GATE_TEST_SHARE")
SYSTEM = Path(__file__).parent / "system"
MARKERS = [
    "checklist(list, *numbers): the test covers these lines of docs/reference/checklists/LIST.md",
    "system: starts many programs; set by itself for everything under tests/system",
    "shape(*names, reason): runs in these shapes only, see tests/system/served.py, and why",
    "core: also runs behind a gateway with three workers where not everything does",
    "alone: takes both cores; scripts/test runs it while nothing else does",
    "full: takes minutes; only scripts/test full runs it",
    "soak: holds load for a long time; only scripts/test full runs it",
]

# A busy machine is no failure, and what fails for one fails for everybody.
settings.register_profile("m2gate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("m2gate")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests of files that no other process has begun."""
    if SHARE is None or session.testsfailed or session.config.option.collectonly:
        return None
    ours = (item for item in session.items if is_ours(item.path))
    item = next(ours, None)
    while item is not None:
        following = next(ours, None)  # claimed before this one is done, which must know what may stay set up
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


@cache
def is_ours(path: Path) -> bool:
    """Claim a file of tests, unless somebody else has."""
    assert SHARE is not None
    try:
        (Path(SHARE) / "-".join(path.parts[1:])).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def pytest_configure(config: pytest.Config) -> None:
    # Hypothesis asks the collector who keeps its generators, and of frozen objects that tells nothing.
    config.addinivalue_line("filterwarnings", "ignore:It looks like `register_random`")
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SYSTEM in item.path.parents:
            item.add_marker("system")


def pytest_collection_finish() -> None:
    # The thousands of collected tests live to the end: a collector that visits them again costs a third of the run.
    gc.collect()
    gc.freeze()
