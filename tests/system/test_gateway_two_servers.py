"""An http and an https server with the same applications: their connections have the same numbers, and never mix."""

import time
from pathlib import Path

import pytest

from tests.system.loaded import load
from tests.system.processes import ROOT
from tests.system.served import Served
from tests.system.support import make_pair, mongrel2, running, wait_until

pytestmark = pytest.mark.alone

APP = ROOT / "tests/system/apps/mixed.py"
MIX = {"plain": 10, "slow": 5, "upload": 2, "download": 3, "burst": 5, "ticks": 5, "events": 10, "sockets": 5}
TOLD_S = 4.0  # two seconds, and two more for a client that is busy itself


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
        wait_even(served)


@pytest.mark.shape("gateway-3", reason="a direct worker's: test_two_servers.py")
def test_the_end_of_one_is_nothing_to_the_other(tmp_path: Path) -> None:
    """Clients of the server that lives see nothing of it; those of the other are served again after its restart."""
    make_pair(tmp_path, "a.test", ["a.test"])
    with (
        mongrel2(uuid="test-1") as living,
        mongrel2(uuid="test-10", certificates=tmp_path) as dying,
        running(APP, living, dying) as served,
        load(living.port, settle_s=0, publish_ms=50, **MIX, rooms=5) as untouched,
        load(dying.port, settle_s=4, tls=1, **MIX, rooms=5) as touched,
    ):
        killed_s = time.monotonic()
        dying.kill9()
        wait_until(lambda: not served.status()["servers"][1]["sessions"], "its sessions are forgotten")
        assert served.status()["servers"][0]["sessions"] >= sum(MIX.values())
        dying.start()
        started_s = time.monotonic()
        wait_until(
            lambda: served.status()["servers"][1]["sessions"] >= sum(MIX.values()) + 5, "its clients are back", 20
        )
        wait_until(lambda: served.status()["servers"][1]["held"] == MIX["events"], "its streams are held again")
        with load(dying.port, settle_s=5, tls=1, **MIX, rooms=5) as later:
            reports = [one.finish() for one in (later, touched, untouched)]
        for report in reports:
            for kind in (*MIX, "rooms"):
                assert report.good[kind] > 0, kind
        assert not reports[0].failures
        assert reports[1].failures
        for one in reports[1].failures:
            assert one.what in {"closed", "refused"}, one
            assert killed_s <= one.at_s, (one, killed_s)
            assert reports[1].delay_s(one, started_s) < TOLD_S, (one, started_s)
        assert not reports[2].failures
        assert served.status()["counters"]["requests_failed"]["server-lost"] > 0
        wait_even(served)


def wait_even(served: Served) -> None:
    """started = finished + failed, once nothing is open."""

    def is_even() -> bool:
        counters = served.status()["counters"]
        return counters["requests_started"] == counters["requests_finished"] + sum(counters["requests_failed"].values())

    wait_until(is_even, "the counts add up", 15)
