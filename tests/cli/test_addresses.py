"""Publish inputs and metrics: their defaults, and what cannot be one."""

import socket
from pathlib import Path

import pytest

from m2gate.cli.addresses import PUBLISH_HTTP, PUBLISH_PULL, PUBLISH_SUB, InputAddresses, parse_inputs
from m2gate.cli.ports import check_free
from m2gate.cli.rundir import RunError
from m2gate.errors import ConfigError
from tests.system.support import free_port

BIND = ("127.0.0.1", 1)


def test_without_options_there_are_none() -> None:
    assert parse_inputs(None, None, None, None) == InputAddresses()
    assert InputAddresses().environ() == {}
    assert parse_inputs(None, None, None, "127.0.0.1:9090") == InputAddresses(metrics="127.0.0.1:9090")


@pytest.mark.parametrize("given", range(3))
def test_one_brings_the_others(given: int) -> None:
    defaults = [PUBLISH_HTTP, PUBLISH_PULL, PUBLISH_SUB]
    options: list[str | None] = [None, None, None]
    options[given] = defaults[given]
    found = parse_inputs(options[0], options[1], options[2], None)
    assert [found.publish_http, found.publish_pull, found.publish_sub] == defaults
    assert found.environ() == {"M2GATE_PUBLISH": "http://127.0.0.1:5561"}


FORMS = [
    pytest.param("5561", "127.0.0.1:5561", "http://127.0.0.1:5561", id="port"),
    pytest.param("localhost:1", "127.0.0.1:1", "http://127.0.0.1:1", id="localhost"),
    pytest.param("0.0.0.0:1", "0.0.0.0:1", "http://127.0.0.1:1", id="any"),
    pytest.param("[::]:1", "[::]:1", "http://[::1]:1", id="any-of-ipv6"),
    pytest.param("[::1]:1", "[::1]:1", "http://[::1]:1", id="ipv6"),
]


@pytest.mark.parametrize(("text", "address", "url"), FORMS)
def test_forms(text: str, address: str, url: str) -> None:
    found = parse_inputs(text, None, None, None)
    assert (found.publish_http, found.environ()["M2GATE_PUBLISH"]) == (address, url)


def test_star_and_ipc(tmp_path: Path) -> None:
    spec = f"ipc://{tmp_path}/publish"
    found = parse_inputs(None, "tcp://*:5560", spec, None)
    assert (found.publish_pull, found.publish_sub) == ("tcp://0.0.0.0:5560", spec)
    assert [option for option, *_ in found.tcp()] == ["--publish-http", "--publish-pull"]


WRONG = [
    pytest.param(("here:1", None, None, None), "--publish-http = 'here:1': 'here' is no IP address", id="name"),
    pytest.param(("127.0.0.1:0", None, None, None), "--publish-http = '127.0.0.1:0': nobody would know", id="zero"),
    pytest.param((None, "127.0.0.1:1", None, None), "--publish-pull = '127.0.0.1:1': no ZeroMQ address", id="spec"),
    pytest.param((None, None, "ipc://x", None), "--publish-sub = 'ipc://x': there is no such folder", id="relative"),
    pytest.param((None, None, "ipc:///no/x", None), "--publish-sub = 'ipc:///no/x': there is no such", id="folder"),
    pytest.param((None, None, "ipc:///etc/passwd", None), "which is no socket", id="file"),
    pytest.param((None, None, f"ipc:///{'x' * 107}", None), "the path of a socket ends at 107 bytes", id="long"),
    pytest.param((None, None, None, "9090x"), "--metrics = '9090x': no port", id="metrics"),
]


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_mistakes_name_the_option(options: tuple[str | None, str | None, str | None, str | None], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_inputs(*options)
    assert said in str(caught.value)


def test_a_taken_port_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RunError) as caught:
            check_free(InputAddresses(metrics=address), BIND)
    remedy = "stop what listens there, or choose another with --metrics"
    assert str(caught.value) == f"--metrics = '{address}': Address already in use; {remedy}"


def test_two_of_the_same_port() -> None:
    port = free_port()
    inputs = InputAddresses(publish_http=f"127.0.0.1:{port}", publish_pull=f"tcp://0.0.0.0:{port}")
    with pytest.raises(ConfigError, match=r"--publish-pull = .*: --publish-http has the same port"):
        check_free(inputs, BIND)
    with pytest.raises(ConfigError, match=r"--publish-http = .*: --bind has the same port"):
        check_free(inputs, ("127.0.0.1", port))
    check_free(InputAddresses(publish_http=f"127.0.0.1:{port}"), ("127.0.0.2", port))


def test_what_others_can_reach_is_warned_of() -> None:
    inputs = InputAddresses(publish_http="0.0.0.0:1", publish_pull="tcp://127.0.0.1:2", metrics="10.0.0.1:3")
    assert [line.partition(";")[0] for line in inputs.warnings()] == [
        "--publish-http = '0.0.0.0:1': whoever reaches this address can publish to your channels",
        "--metrics = '10.0.0.1:3': whoever reaches this address can read the metrics",
    ]
