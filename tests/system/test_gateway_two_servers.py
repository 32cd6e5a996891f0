"""An http and an https server with the same applications: their connections have the same numbers, and never mix."""

from pathlib import Path

import pytest

from tests.system.loaded import load
from tests.system.processes import ROOT
from tests.system.support import make_pair, mongrel2, running, wait_until

APP = ROOT / "tests/system/apps/mixed.py"
MIX = {"plain": 10, "slow": 5, "upload": 2, "download": 3, "burst": 5, "ticks": 5, "events": 10, "sockets": 5}


@pytest.mark.core
def test_http_and_https_side_by_side(tmp_path: Path) -> None:
    make_pair(tmp_path, "a.test", ["a.test"])
    with (
        mongrel2(uuid="test-1") as plain,
        mongrel2(uuid="test-10", certificates=tmp_path) as secure,
        running(APP, plain, secure) as served,
        load(plain.port, settle_s=0, publish_ms=50, **MIX, rooms=5) as first,
        load(secure.port, settle_s=4, tls=1, **MIX, rooms=5) as second,
    ):
        status = served.status()
        for server in status["servers"]:
            assert server["sessions"] >= sum(MIX.values()), server
        (news,) = status["channels"]
        assert news["subscribers"] >= 2 * (10 + 5)
        reports = [one.finish() for one in (second, first)]
        for report in reports:
            assert not report.failures
            for kind in (*MIX, "rooms"):
                assert report.good[kind] > 0, kind

        def is_even() -> bool:
            counters = served.status()["counters"]
            return counters["requests_started"] == counters["requests_finished"] + sum(
                counters["requests_failed"].values()
            )

        wait_until(is_even, "the counts add up", 15)
