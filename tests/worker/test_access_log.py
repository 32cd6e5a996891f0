"""The access log, where it cannot be written."""

import sys
from io import StringIO

import pytest

from m2gate.worker.access_log import AccessLog
from tests.link.fakes import FakeMongrel2


class Full(StringIO):
    """A log on a full disk."""

    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_costs_lines_not_answers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    log = AccessLog("-")
    far = FakeMongrel2()
    for _ in range(3):
        exchange = far.opened(1)
        log.begin(exchange)
        exchange.respond(200, (), b"done")
        assert exchange.ended
    assert far.taken(1).count(b"done") == 3
    assert log.lost == 3
    assert len(caplog.records) == 1  # not one a request: that log may be on the same disk
