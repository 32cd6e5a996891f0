"""Many transfers and WebSockets at once over three workers: all of them whole, in order, and nobody's in another's."""

import pytest

from tests.system.loaded import load
from tests.system.processes import ROOT
from tests.system.support import m2gate_run
from tests.system.test_gateway_deaths import assert_counted, status

pytestmark = pytest.mark.alone

APP = ROOT / "tests/system/apps/mixed.py"


def test_200_chunked_uploads_at_once() -> None:
    """1 to 8 MB each; no worker ever sees them in one piece, and none sees another's."""
    with m2gate_run(APP, "--workers", "3") as run:
        with load(run.port, upload=200) as clients:
            assert all(one["outstanding"] for one in status(run)["workers"]), "each worker has some"
            report = clients.finish()
        assert not report.failures
        assert report.good["upload"] >= 200
        assert_counted(run)


def test_messages_of_300_websockets_stay_in_order() -> None:
    with m2gate_run(APP, "--workers", "3") as run:
        with load(run.port, burst=300) as clients:
            report = clients.finish()
        assert not report.failures
        assert report.good["burst"] >= 300
        assert_counted(run)


def test_all_kinds_at_once() -> None:
    with m2gate_run(APP, "--workers", "3") as run:
        with load(run.port, settle_s=4, upload=10, download=20, burst=20, plain=10, slow=10) as clients:
            report = clients.finish()
        assert not report.failures
        for kind in ("upload", "download", "burst", "plain", "slow"):
            assert report.good[kind] > 0, kind
        assert_counted(run)
