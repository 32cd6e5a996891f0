"""The rendered text: what stands in it, and that each setting says why."""

import sys
from pathlib import Path

import pytest

import m2gate.site.render
from m2gate.errors import ConfigError
from m2gate.site.private import PrivateServer
from m2gate.site.render import find_templates, render
from m2gate.site.settings import KNOWN, Bounds

GOLDEN = Path(__file__).parent / "mongrel2.conf.golden"
PRIVATE = PrivateServer(
    folder=Path("/run/m2gate/run-6767"),
    port=6767,
    routes=("/", "@chat"),
    static={"/static/": Path("/srv/public")},
    certdir=Path("/run/m2gate/run-6767/certs"),
)


def test_golden() -> None:
    assert render(PRIVATE.configuration()).text == GOLDEN.read_text()


def test_recv_ident_ends_in_a_blank() -> None:
    assert PRIVATE.handler.recv_ident == "m2gate "
    assert 'recv_ident="m2gate "' in render(PRIVATE.configuration()).text


def test_each_known_setting_is_written_once() -> None:
    texts = {
        "certdir": "/c/",
        "ssl_ciphers": "A B",
        "upload.temp_store": "/u/XXXXXX",
        "upload.temp_store_mode": "0600",
        "ssl.ca_chain": "/ca.pem",
    }
    every = {key: rule.high if isinstance(rule, Bounds) else texts[key] for key, rule in KNOWN.items()}
    text = render(PrivateServer(folder=Path("/r"), port=1, settings=every).configuration()).text
    for key, value in every.items():
        written = f'"{value}"' if isinstance(value, str) else value
        assert text.count(f'"{key}": {written}\n') == 1


def test_each_setting_of_ours_has_its_reason() -> None:
    lines = render(PRIVATE.configuration()).text.splitlines()
    start = lines.index("settings = {")
    settings = [number for number in range(start, len(lines)) if lines[number].startswith('    "')]
    assert len(settings) > 10
    for number in settings:
        assert lines[number - 1].startswith("    # ")
        assert "no opinion" not in lines[number - 1]


def test_a_bad_configuration_is_not_rendered() -> None:
    with pytest.raises(ConfigError, match="port = 0"):
        render(PrivateServer(folder=Path("/r"), port=0).configuration())


def test_templates_of_a_checkout_come_first() -> None:
    assert find_templates() == Path(__file__).resolve().parents[2] / "mongrel2.conf.d"


def test_templates_of_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m2gate.site.render, "__file__", str(tmp_path / "lib" / "m2gate" / "site" / "render.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    place = tmp_path / "share" / "m2gate" / "mongrel2.conf.d"
    if not Path("/usr/share/m2gate/mongrel2.conf.d").exists():
        with pytest.raises(ConfigError, match="install m2gate again"):
            find_templates()
    place.mkdir(parents=True)
    (place / "mongrel2.conf.j2").touch()
    assert find_templates() == place
