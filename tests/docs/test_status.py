"""The page about status and metrics: it names everything that there is."""

import re
from typing import Final

import pytest

from m2gate.gateway import counters
from m2gate.inputs.document import (
    ChannelStatus,
    CountersStatus,
    QueueStatus,
    ServerStatus,
    StatusDocument,
    WorkerStatus,
)
from m2gate.link import tally
from tests.inputs.test_metrics import METRICS
from tests.system.processes import ROOT

PAGE: Final = (ROOT / "docs/reference/status.md").read_text(encoding="utf-8")
NAMED: Final = set(re.findall(r"`([a-z0-9_-]+)`", PAGE))


@pytest.mark.parametrize(
    "kind", [StatusDocument, ServerStatus, WorkerStatus, QueueStatus, ChannelStatus, CountersStatus]
)
def test_every_key(kind: type) -> None:
    assert set(kind.__annotations__) <= NAMED


def test_every_metric_and_no_other() -> None:
    names = {f"{name}_total" if kind == "counter" else name for name, (kind, _) in METRICS.items()}
    assert {name for name in NAMED if name.startswith("m2gate_")} == names


def test_every_reason() -> None:
    assert {*tally.REASONS, *counters.REASONS} <= NAMED
    table = PAGE.partition("### Reasons")[2].partition("### Drops")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == {*tally.REASONS, *counters.REASONS}
