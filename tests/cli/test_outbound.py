"""``m2gate outbound check``: what an operator reads of a URL."""

import json

import pytest
from click.testing import CliRunner, Result

from m2gate.cli.outbound import command


def check(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["check", *arguments])


def test_a_refused_url_is_explained() -> None:
    done = check("http://127.0.0.1:8080/x")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "http://127.0.0.1:8080/x: refused",
        "    syntax   http, host 127.0.0.1, port 8080, target /x",
        "    policy   scheme and port are allowed",
        "    address  127.0.0.1: 127.0.0.0/8 is not public",
    ]


def test_several_urls_and_options() -> None:
    done = check("--allow-net", "127.0.0.0/8", "--deny-port", "25", "http://127.0.0.1/", "http://127.0.0.1:25/")
    assert done.exit_code == 1
    assert "http://127.0.0.1/: allowed" in done.output
    assert "    policy   port 25 is denied" in done.output
    assert check("--allow-net", "127.0.0.0/8", "http://127.0.0.1/").exit_code == 0


def test_json() -> None:
    done = check("--json", "http://93.184.216.34/", "http://localhost/")
    good, bad = json.loads(done.output)
    assert good["allowed"] is True
    assert good["addresses"] == ["93.184.216.34"]
    assert bad == {
        "url": "http://localhost/",
        "allowed": False,
        "addresses": [],
        "steps": [
            {"rule": "syntax", "text": "http, host localhost, port 80, target /"},
            {"rule": "policy", "text": "scheme and port are allowed"},
            {"rule": "name", "text": "a name without a dot is one of the local network"},
        ],
    }


def test_what_a_terminal_would_take_for_a_command_is_shown() -> None:
    assert "\x1b" not in check("http://shop.com/\x1b[2J").output


@pytest.mark.parametrize("arguments", [(), ("--allow-net", "inside", "http://shop.com/"), ("--deny-port", "0", "x")])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert check(*arguments).exit_code != 0
