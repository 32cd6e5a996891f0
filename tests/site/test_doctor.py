"""What `m2gate doctor` says of installations that are spoiled in one place each: that, and nothing else."""

import ast
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from m2gate.cli.doctor import command
from m2gate.site.doctor.database import NEEDED
from m2gate.site.doctor.facts import Identity, read_facts
from m2gate.site.doctor.pairs import check_pairs
from m2gate.site.doctor.software import LIBRARIES, Software, check_software, find_software
from tests.site.authority import Authority
from tests.site.installation import SITE, Healthy
from tests.system.processes import ROOT, make_pair, short_directory

pytestmark = pytest.mark.system

Sabotage = Callable[[Healthy], object]


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Healthy]:
    with short_directory() as folder:
        monkeypatch.setenv("M2GATE_ROOT", str(folder))
        yield Healthy(folder)


def doctor(*args: str) -> Result:
    return CliRunner().invoke(command, args)


def test_a_healthy_installation(healthy: Healthy) -> None:
    before = healthy.snapshot()
    done = doctor()
    assert done.exit_code == 0
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["m2gate", "python", "pyzmq", "gevent", "jinja2", "libzmq", "tnetstring", "codec", "mongrel2"]
    assert "_tnetstring.cpython-3" in done.stdout
    document = json.loads(doctor("--json").stdout)
    assert (document["findings"], document["healthy"]) == ([], True)
    assert document["versions"]["mongrel2"].startswith("1.")
    assert healthy.snapshot() == before


def test_a_fresh_installation_without_sites(healthy: Healthy) -> None:
    (healthy.places.enabled / "shop.toml").unlink()
    healthy.places.database.unlink()
    shutil.rmtree(healthy.places.certs)
    healthy.places.certs.mkdir()
    done = doctor()
    assert (done.exit_code, done.stdout.count("\n")) == (0, 9)


def replace_pair(healthy: Healthy, **options: Any) -> None:
    """Give the site a certificate of an authority that this machine knows."""
    folder = healthy.places.root / "authority"
    folder.mkdir()
    authority = Authority(folder)
    os.environ["SSL_CERT_FILE"] = str(authority.root)
    authority.issue(healthy.places.certs, "shop.test", options.pop("names", ["shop.test"]), **options)


def swap_keys(healthy: Healthy) -> None:
    make_pair(healthy.places.certs, "other", ["shop.test"])
    (healthy.places.certs / "other.key").replace(healthy.places.certs / "shop.test.key")
    (healthy.places.certs / "other.crt").unlink()


def rename_pair(healthy: Healthy, stem: str) -> None:
    for suffix in ("crt", "key"):
        shutil.copy(healthy.places.certs / f"shop.test.{suffix}", healthy.places.certs / f"{stem}.{suffix}")


def remove(healthy: Healthy, *names: str) -> None:
    for name in names:
        (healthy.places.root / name).unlink()


def spoil_clock(healthy: Healthy) -> None:
    future = time.time() + 86_400
    os.utime(healthy.places.database, (future, future))


def systemd_without_units(healthy: Healthy) -> None:
    (healthy.places.root / "run/systemd/system").mkdir(parents=True)
    for unit in ("m2gate-mongrel2@.service", "m2gate-gateway.service", "m2gate.target"):
        healthy.write(f"usr/lib/systemd/system/{unit}", "[Unit]\n")


def add_folder(healthy: Healthy) -> None:
    folder = healthy.places.root / "srv/static"
    folder.mkdir(parents=True)
    text = f'{SITE}\n[[route]]\npath = "/static/"\ndir = "{folder}/"\n'
    (healthy.places.available / "shop.toml").write_text(text)


def nginx(healthy: Healthy, inside: str, target: str = "http://127.0.0.1:8080") -> None:
    healthy.write("etc/nginx/nginx.conf", "events {}\nhttp {\n    include /etc/nginx/sites-enabled/*;\n}\n")
    healthy.write(
        "etc/nginx/sites-enabled/shop",
        f"server {{\n    location / {{\n        proxy_pass {target};\n{inside}\n    }}\n}}\n",
    )


HAPROXY = """\
defaults
    mode http
    option http-buffer-request
backend other
    server one 127.0.0.1:9999
backend m2gate
    server one 127.0.0.1:8080
"""

NEW = (
    SITE.replace(":80", ":90")
    .replace(":84", ":94")
    .replace("handler.shop", "handler.new")
    .replace('r = "shop"', 'r = "new"')
)

ZURL = """\
[General]
ipc_file_mode=660
defpolicy=allow
allow=
deny=127.*,10.*,192.168.*,*.local
"""


def sabotage(name: str, where: str, act: Sabotage, case: str = "") -> Any:
    return pytest.param(act, name, where, id=case or name)


SABOTAGES = [
    sabotage(
        "recv-ident", "config.sqlite", lambda one: one.sql("update handler set recv_ident = send_ident where id = 2")
    ),
    sabotage("certdir", "config.sqlite", lambda one: one.setting("certdir", str(one.places.certs)), "certdir-slash"),
    sabotage("certdir", "config.sqlite", lambda one: one.setting("certdir", "/etc/ssl/"), "certdir-elsewhere"),
    sabotage("pair-expired", "shop.test.crt", lambda one: replace_pair(one, days=-1)),
    sabotage("pair-expires", "shop.test.crt", lambda one: replace_pair(one, days=5)),
    sabotage("pair-chain", "shop.test.crt", lambda one: replace_pair(one, with_chain=False)),
    sabotage("pair-name", "shop.test.crt", lambda one: replace_pair(one, names=["other.test"])),
    sabotage("pair-broken", "shop.test.crt", swap_keys, "pair-mismatched"),
    sabotage("pair-broken", "Shop.test.crt", lambda one: rename_pair(one, "Shop.test"), "pair-named-wrongly"),
    sabotage("pair-broken", "shop.test.crt", lambda one: remove(one, "etc/m2gate/certs/shop.test.key"), "pair-halved"),
    sabotage(
        "pair-missing",
        "etc/m2gate/certs",
        lambda one: remove(one, "etc/m2gate/certs/shop.test.key", "etc/m2gate/certs/shop.test.crt"),
    ),
    sabotage("default-pair", "local-8443.crt", lambda one: rename_pair(one, "local-8443"), "default-pair-has-a-name"),
    sabotage(
        "default-pair",
        "etc/m2gate/certs",
        lambda one: remove(one, "etc/m2gate/certs/local-8443.key", "etc/m2gate/certs/local-8443.crt"),
        "default-pair-missing",
    ),
    sabotage("key-mode", "shop.test.key", lambda one: (one.places.certs / "shop.test.key").chmod(0o644)),
    sabotage("kill-limit", "config.sqlite", lambda one: one.setting("limits.min_ping", "30"), "kill-limit-ping"),
    sabotage("kill-limit", "config.sqlite", lambda one: one.setting("limits.kill_limit", "1")),
    sabotage(
        "kill-limit",
        "config.sqlite",
        lambda one: one.write("etc/m2gate/m2gate.toml", "[gateway]\nkeepalive = 110\n"),
        "kill-limit-keepalive",
    ),
    sabotage("file-limit", "config.sqlite", lambda one: one.setting("superpoll.max_fd", "256")),
    sabotage(
        "hot-dividend", "config.sqlite", lambda one: one.sql("delete from setting where key = 'superpoll.hot_dividend'")
    ),
    sabotage("flow-control", "config.sqlite", lambda one: one.setting("download.flow_control", "0")),
    sabotage("upload-stream", "config.sqlite", lambda one: one.setting("upload.stream", "0")),
    sabotage("upload-buffer", "config.sqlite", lambda one: one.setting("limits.content_length", "65536")),
    sabotage("daemonize", "config.sqlite", lambda one: one.setting("server.daemonize", "1")),
    sabotage("forwarded-for", "config.sqlite", lambda one: one.setting("no_clobber_xff", "0")),
    sabotage("control-port", "run/m2gate/control", lambda one: one.places.control.chmod(0o750), "control-folder"),
    sabotage(
        "control-port",
        "config.sqlite",
        lambda one: one.sql("update server set control_port = 'tcp://127.0.0.1:9000' where id = 1"),
        "control-on-tcp",
    ),
    sabotage("handler-sockets", "run/m2gate/handlers", lambda one: one.places.handlers.chmod(0o755), "handler-folder"),
    sabotage(
        "handler-sockets",
        "config.sqlite",
        lambda one: one.sql("update handler set recv_spec = 'tcp://0.0.0.0:9001' where id = 1"),
        "handler-on-tcp",
    ),
    sabotage("database-writable", "config.sqlite", lambda one: one.places.database.chmod(0o664), "database-mode"),
    sabotage("database-writable", "var/lib/m2gate", lambda one: one.places.state.chmod(0o777), "database-folder"),
    sabotage(
        "database-outdated",
        "config.sqlite",
        lambda one: one.enable("new", NEW),
    ),
    sabotage(
        "database-outdated",
        "config.sqlite",
        add_folder,
        "database-outdated-route",
    ),
    sabotage(
        "database-outdated",
        "config.sqlite",
        lambda one: one.write("etc/m2gate/m2gate.toml", '[mongrel2]\n"limits.header_count" = 99\n'),
        "database-outdated-setting",
    ),
    sabotage("database", "config.sqlite", lambda one: one.places.database.unlink(), "database-missing"),
    sabotage("database", "config.sqlite", lambda one: one.places.database.write_text("nonsense"), "database-broken"),
    sabotage(
        "dangling-link",
        "sites-enabled/gone.toml",
        lambda one: (one.places.enabled / "gone.toml").symlink_to("../sites-available/gone.toml"),
    ),
    sabotage("site", "shop.toml:1", lambda one: (one.places.available / "shop.toml").write_text("hots = []\n" + SITE)),
    sabotage("site", "m2gate.toml:1", lambda one: one.write("etc/m2gate/m2gate.toml", "[mongrl2]\n"), "settings"),
    sabotage("folder", "var/log/m2gate", lambda one: one.places.logs.rmdir(), "folder-missing"),
    sabotage(
        "stale-pid", "local-8080.pid", lambda one: one.write("run/m2gate/control/local-8080.pid", f"{os.getpid()}\n")
    ),
    sabotage("clock", "config.sqlite", spoil_clock),
    sabotage("unit", "m2gate-worker@.service", systemd_without_units),
    sabotage("front-buffers", "sites-enabled/shop:3", lambda one: nginx(one, "proxy_request_buffering off;"), "nginx"),
    sabotage("front-buffers", "haproxy.cfg:3", lambda one: one.write("etc/haproxy/haproxy.cfg", HAPROXY), "haproxy"),
    sabotage("zurl-policy", "etc/zurl.conf", lambda one: one.write("etc/zurl.conf", ZURL)),
]


@pytest.mark.parametrize(("act", "name", "where"), SABOTAGES)
def test_each_sabotage_is_found_and_nothing_else(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch, act: Sabotage, name: str, where: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE", ""))  # which a sabotage may set
    act(healthy)
    before = healthy.snapshot()
    done = doctor("--json")
    findings = json.loads(done.stdout)["findings"]
    assert [one["name"] for one in findings] == [name], findings
    assert findings[0]["where"].endswith(where)
    assert findings[0]["what"]
    assert findings[0]["remedy"]
    assert done.exit_code == 1
    assert healthy.snapshot() == before


def test_text_says_where_what_and_the_remedy(healthy: Healthy) -> None:
    healthy.places.control.chmod(0o750)
    done = doctor()
    assert done.exit_code == 1
    *_, what, remedy = done.stdout.splitlines()
    assert what.startswith(f"control-port: {healthy.places.control}: handlers can reach the control ports: 0750 ")
    assert remedy == f"    chmod 700 {healthy.places.control}"


def test_a_healthy_front_and_a_closed_zurl_are_no_finding(healthy: Healthy) -> None:
    nginx(healthy, "proxy_buffering off; proxy_request_buffering off;")
    healthy.write("etc/haproxy/haproxy.cfg", HAPROXY.replace("8080", "9998"))
    deny = "127.*,10.*,192.168.*,*.local,0.0.0.0/8,100.64.0.0/10,169.254.*,172.16.0.0/12"
    healthy.write("etc/zurl.conf", ZURL.replace("127.*,10.*,192.168.*,*.local", deny))
    assert doctor().exit_code == 0


def test_an_old_mongrel2(healthy: Healthy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "m2sh"
    program.write_text("#!/bin/sh\necho Mongrel2/1.8.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = doctor("--json")
    (found,) = json.loads(done.stdout)["findings"]
    assert (found["name"], found["what"]) == ("version", "mongrel2 1.8.1 is too old")


def test_programs_that_are_missing(healthy: Healthy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = json.loads(doctor("--json").stdout)["findings"]
    assert [one["what"] for one in found] == ["mongrel2 is not installed", "there is no openssl", "no such program"]


@pytest.mark.parametrize(
    ("change", "name", "what"),
    [
        ({"codec": None}, "codec", "no compiled part"),
        ({"libraries": {**LIBRARIES, "pyzmq": "23.2.1"}}, "version", "pyzmq 23.2.1 is too old"),
        ({"libraries": {**LIBRARIES, "gevent": "not installed"}}, "version", "gevent is not installed"),
        ({"libzmq": "4.1.4"}, "version", "libzmq 4.1.4 is too old"),
        ({"has_openssl": False}, "openssl", "no openssl"),
    ],
)
def test_software_that_is_missing_or_old(change: dict[str, Any], name: str, what: str) -> None:
    good: Software = find_software()
    assert list(check_software(good)) == []
    (found,) = check_software(replace(good, **change))
    assert found.name == name
    assert what in found.what


def test_needed_versions_are_those_of_the_package() -> None:
    lines = (ROOT / "setup.cfg").read_text().partition("install_requires =\n")[2].partition("\n\n")[0].splitlines()
    assert dict(line.strip().split(">=") for line in lines) == LIBRARIES


def test_the_reference_has_every_finding() -> None:
    names = {name for name, _ in NEEDED.values()}
    for file in (ROOT / "m2gate/site/doctor").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "finding":
                names |= {str(node.args[0].value)} if isinstance(node.args[0], ast.Constant) else set()
    rows = re.findall(r"^\| (`.*`) \|", (ROOT / "docs/reference/doctor.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`([a-z-]+)`", " ".join(rows))) == sorted(names)


def test_a_key_that_mongrel2_may_not_read(healthy: Healthy) -> None:
    nobody = Identity(name="m2gate-www", uid=65_534, groups=frozenset([65_534]))
    for file in healthy.places.certs.iterdir():
        file.chmod(0o644 if file.suffix == ".crt" else 0o640)
    found = list(check_pairs(replace(read_facts(healthy.places), mongrel2=nobody)))
    assert [(one.name, Path(one.where).name) for one in found] == [
        ("key-mode", "local-8443.key"),
        ("key-mode", "shop.test.key"),
    ]
    assert found[0].what.startswith("m2gate-www, who runs Mongrel2, may not read it: 0640 ")


def test_what_this_user_may_not_enter(healthy: Healthy) -> None:
    places = healthy.places
    places.root.chmod(0o755)
    places.handlers.chmod(0)
    places.certs.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)
    try:
        document, text = json.loads(doctor("--json").stdout), doctor().output
    finally:
        if is_root:
            os.seteuid(0)
        places.handlers.chmod(0o2750)
        places.certs.chmod(0o755)
    assert document["findings"] == []
    assert {str(places.certs), str(places.handlers)} <= set(document["closed"])
    assert "this user may not enter: " in text
