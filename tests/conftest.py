"""Markers of the whole suite; the fixtures live beside the tests that use them."""

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SYSTEM = Path(__file__).parent / "system"
MARKERS = [
    "checklist(list, *numbers): the test covers these lines of docs/reference/checklists/LIST.md",
    "system: starts real programs; set by itself for everything under tests/system",
    "shape(*names, reason): runs in these shapes only, see tests/system/served.py, and why",
    "core: also runs behind a gateway with three workers where not everything does",
    "full: takes minutes; only scripts/test full runs it",
    "soak: holds load for a long time; only scripts/test full runs it",
]

# A busy machine is no failure, and what fails for one fails for everybody.
settings.register_profile("m2gate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("m2gate")


def pytest_configure(config: pytest.Config) -> None:
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
