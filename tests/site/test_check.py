"""What a configuration must not contain: each case is refused with its key, and says what to do."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from m2gate.errors import ConfigError
from m2gate.site.check import check_configuration
from m2gate.site.records import Configuration, Directory, Handler, Protocol, Server, Target
from m2gate.site.settings import DEFAULTS, KNOWN, Bounds

HANDLER = Handler(send_spec="ipc:///tmp/a/requests", recv_spec="ipc:///tmp/a/replies", send_ident="app-1")
FOLDER = Directory(base="/srv/public/")
SERVER = Server(
    uuid="app-1",
    port=6767,
    routes={"/": HANDLER, "@chat": HANDLER, "/static/": FOLDER},
    access_log="/tmp/a/access.log",
    error_log="/tmp/a/error.log",
    pid_file="/tmp/a/m2.pid",
    control_port="ipc:///tmp/a/control",
)


def configuration(
    server: Server = SERVER,
    settings: Mapping[str, Any] | None = None,
    mimetypes: Mapping[str, str] | None = None,
) -> Configuration:
    return Configuration(
        servers=(server,),
        settings={**DEFAULTS, **(settings or {})},
        mimetypes=mimetypes or {},
        source="shop.toml",
    )


def refusal(bad: Configuration) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check_configuration(bad)
    error = caught.value
    assert error.source == "shop.toml"
    assert str(error).startswith(f"shop.toml: {error.key} = ")
    assert error.problem
    assert error.remedy
    return error


def test_the_defaults_are_good() -> None:
    check_configuration(configuration())


@pytest.mark.checklist("mongrel2", 22)
@pytest.mark.parametrize("ident", ["shop_1", "a.b", "a:b", "a b", "", "ä", "a\n", 'a"b'])
def test_idents_are_letters_digits_and_hyphens(ident: str) -> None:
    error = refusal(configuration(replace(SERVER, routes={"/": replace(HANDLER, send_ident=ident)})))
    assert (error.key, error.value) == ("send_ident", ident)
    assert refusal(configuration(replace(SERVER, uuid=ident))).key == "uuid"


@pytest.mark.checklist("mongrel2", 22)
def test_a_refused_ident_shows_a_good_one() -> None:
    error = refusal(configuration(replace(SERVER, uuid="shop_1.x")))
    assert error.remedy == "use e.g. 'shop-1-x'"
    assert "only letters, digits and '-'" in str(error)


SERVERS = [
    pytest.param({"port": 0}, "port", id="port-zero"),
    pytest.param({"port": 65_536}, "port", id="port-too-high"),
    pytest.param({"bind_addr": "shop.example"}, "bind_addr", id="host-name"),
    pytest.param({"bind_addr": ""}, "bind_addr", id="no-address"),
    pytest.param({"access_log": '/tmp/"'}, "access_log", id="quote"),
    pytest.param({"error_log": "/tmp/a\n"}, "error_log", id="newline"),
    pytest.param({"pid_file": "/tmp/\0"}, "pid_file", id="nul"),
    pytest.param({"chroot": "/tmp/\x7f"}, "chroot", id="control-character"),
    pytest.param({"pid_file": "/tmp/\udcff"}, "pid_file", id="no-utf8"),
    pytest.param({"control_port": "tcp:/x"}, "control_port", id="no-zmq-address"),
    pytest.param({"control_port": HANDLER.send_spec}, "send_spec", id="control-port-is-send-spec"),
    pytest.param({"routes": {}}, "routes", id="no-routes"),
    pytest.param({"use_ssl": True}, "certdir", id="tls-without-certdir"),
]


@pytest.mark.parametrize(("changes", "key"), SERVERS)
def test_bad_servers(changes: dict[str, Any], key: str) -> None:
    assert refusal(configuration(replace(SERVER, **changes))).key == key


ROUTES = [
    pytest.param({"static/": FOLDER}, "route", id="no-slash-at-the-start"),
    pytest.param({"/static": FOLDER}, "route", id="folder-without-slash"),
    pytest.param({"/s(a)/": FOLDER}, "route", id="folder-with-pattern"),
    pytest.param({"@*": HANDLER}, "route", id="name-of-notices"),
    pytest.param({'/"': HANDLER}, "route", id="quote-in-route"),
    pytest.param({"/api/([0-9]+)": HANDLER, "/api/([a-z]+)": HANDLER}, "route", id="patterns-hide-each-other"),
    pytest.param({"/api/": HANDLER, "/api/([a-z]+)": HANDLER}, "route", id="pattern-hides-prefix"),
    pytest.param({"/s/": replace(FOLDER, base="/srv/public")}, "base", id="base-without-slash"),
    pytest.param({"/s/": replace(FOLDER, base='/srv/"/')}, "base", id="quote-in-base"),
    pytest.param({"/s/": replace(FOLDER, cache_ttl_s=-1)}, "cache_ttl", id="negative-ttl"),
    pytest.param({"/": replace(HANDLER, protocol=cast("Protocol", "xml"))}, "protocol", id="protocol"),
    pytest.param({"/": replace(HANDLER, send_spec="/tmp/a")}, "send_spec", id="path-only"),
    pytest.param({"/": replace(HANDLER, send_spec="ipc://")}, "send_spec", id="no-path"),
    pytest.param({"/": replace(HANDLER, send_spec="udp://a:1")}, "send_spec", id="other-transport"),
    pytest.param({"/": replace(HANDLER, recv_spec=HANDLER.send_spec)}, "recv_spec", id="one-socket-twice"),
    pytest.param({"/": HANDLER, "/b": replace(HANDLER, protocol="json")}, "send_spec", id="merged-handlers"),
    pytest.param(
        {"/": HANDLER, "/b": replace(HANDLER, send_spec="ipc:///tmp/other")}, "recv_spec", id="shared-recv-spec"
    ),
]


@pytest.mark.parametrize(("routes", "key"), ROUTES)
def test_bad_routes(routes: dict[str, Target], key: str) -> None:
    assert refusal(configuration(replace(SERVER, routes=routes))).key == key


@pytest.mark.parametrize("length", [107, 108])
def test_ipc_paths_end_at_107_bytes(length: int) -> None:
    spec = "ipc:///" + "x" * (length - 1)
    server = replace(SERVER, routes={"/": replace(HANDLER, send_spec=spec)})
    if length == 107:
        check_configuration(configuration(server))
    else:
        assert "ends at 107 bytes, this one has 108" in refusal(configuration(server)).problem


SETTINGS = [
    pytest.param("limits.buffersize", 1, "did you mean limits.buffer_size?", id="unknown"),
    pytest.param("limits.kill_limit", 1, "from 2", id="kill-limit"),
    pytest.param("superpoll.hot_dividend", 1, "from 2", id="hot-dividend"),
    pytest.param("limits.handler_targets", 100, "from 128", id="fewer-targets"),
    pytest.param("zeromq.threads", 2, "from 1 to 1", id="threads"),
    pytest.param("server.daemonize", 1, "from 0 to 0", id="daemonize"),
    pytest.param("limits.min_ping", -1, "from 0", id="negative"),
    pytest.param("limits.min_ping", "60", "whole number", id="text-for-number"),
    pytest.param("upload.stream", True, "whole number", id="bool"),
    pytest.param("certdir", "/etc/certs", "end in /", id="certdir-without-slash"),
    pytest.param("upload.temp_store", "/tmp/upload", "XXXXXX", id="no-unique-name"),
    pytest.param("upload.temp_store_mode", "rw", "octal", id="mode"),
    pytest.param("ssl_ciphers", "", "separated", id="empty"),
    pytest.param("certdir", 1, "end in /", id="number-for-text"),
]


@pytest.mark.parametrize(("key", "value", "remedy"), SETTINGS)
def test_bad_settings(key: str, value: object, remedy: str) -> None:
    error = refusal(configuration(settings={key: value}))
    assert (error.key, error.value) == (key, value)
    assert remedy in error.remedy


def test_upload_buffer_is_not_smaller_than_the_head() -> None:
    error = refusal(configuration(settings={"limits.content_length": 8192}))
    assert error.key == "limits.content_length"
    assert error.remedy == "use 16384 or more"


def test_mimetypes_have_a_dot() -> None:
    error = refusal(configuration(mimetypes={"wasm": "application/wasm"}))
    assert (error.key, error.value, error.remedy) == ("mimetypes", "wasm", "write .wasm")


@pytest.mark.parametrize("key", sorted(KNOWN))
def test_each_number_works_at_its_bounds(key: str) -> None:
    rule = KNOWN[key]
    if isinstance(rule, Bounds):
        fitting = {"limits.content_length": rule.high} if key == "limits.buffer_size" else {}
        check_configuration(configuration(settings={**fitting, key: rule.high}))
        low = max(rule.low, 16_384) if key == "limits.content_length" else rule.low
        check_configuration(configuration(settings={key: low}))
