"""The page about publishing: its texts, numbers and keys are those of the code."""

import re
from pathlib import Path
from typing import Final

import pytest

from m2gate.app.publisher import DELIVER_MS, PUSH_MAX, TIMEOUT_S
from m2gate.cli import addresses
from m2gate.hub.formats import FORMATS
from m2gate.hub.grip import OWN
from m2gate.inputs import lanes, listener, publish_http, publish_zmq
from tests.system.processes import ROOT

PAGE: Final = (ROOT / "docs/reference/publishing.md").read_text(encoding="utf-8")
MIB: Final = 1 << 20

BOUNDS = [
    pytest.param(f"{publish_http.HEADER_MAX:,} bytes", id="header"),
    pytest.param(f"a body over {publish_http.BODY_MAX:,}", id="body"),
    pytest.param(f"at most {publish_http.TEXT_MAX} characters", id="text"),
    pytest.param(f"{listener.CONNECTIONS_MAX} connections", id="connections"),
    pytest.param(f"each for {listener.CONNECTION_S:g} s", id="connection"),
    pytest.param(f"after {listener.PATIENCE_S:g} s", id="patience"),
    pytest.param(f"at most {publish_zmq.ITEM_MAX // MIB} MiB", id="item"),
    pytest.param(f"{publish_zmq.WAITING_MAX:,} items wait in the socket", id="unread"),
    pytest.param(f"{lanes.WAITING_MAX:,} items or {lanes.WAITING_BYTES_MAX // MIB} MiB in all", id="lanes"),
    pytest.param(f"wait {TIMEOUT_S:g} s at most", id="attempt"),
    pytest.param(f"within {DELIVER_MS // 1_000} s after `close()`", id="deliver"),
    pytest.param(f"more than {PUSH_MAX // MIB} MiB over ZeroMQ", id="push"),
    pytest.param(f"| HTTP POST | {addresses.PUBLISH_HTTP} |", id="http"),
    pytest.param(f"| ZeroMQ PULL, bound | {addresses.PUBLISH_PULL} |", id="pull"),
    pytest.param(f"| ZeroMQ SUB, bound | {addresses.PUBLISH_SUB} |", id="sub"),
]


@pytest.mark.parametrize("text", BOUNDS)
def test_each_bound(text: str) -> None:
    assert text in PAGE


def test_each_format() -> None:
    table = PAGE.partition("| format |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.MULTILINE)) == {*FORMATS, OWN}


def test_each_status_and_text_of_the_http_input() -> None:
    source = Path(publish_http.__file__).read_text(encoding="utf-8")
    for status, text in re.findall(r'Refused\((\d+), f?"([^"{]*)', source):
        assert status in PAGE
        assert text.removesuffix("\\n").strip() in PAGE
    assert {str(status) for status in publish_http.REASONS} <= set(re.findall(r"\b\d{3}\b", PAGE))
