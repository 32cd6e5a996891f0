"""What is read of the configuration of proxies in front, and of zurl's."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from m2gate.site.doctor.facts import Facts, ServerRow
from m2gate.site.doctor.fronts import PRIVATE, check_haproxy, check_nginx, check_zurl
from m2gate.site.doctor.nginx import DEPTH_MAX, FILES_MAX, Directive, find_passes, find_upstreams, parse
from m2gate.site.places import Places
from tests.system.processes import ROOT


def server(port: int) -> ServerRow:
    return ServerRow(uuid=f"local-{port}", bind_addr="127.0.0.1", port=port, use_ssl=port == 443, control_port="")


@dataclass
class Machine:
    root: Path

    def write(self, name: str, text: str) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def found(self, port: int = 8080) -> Facts:
        return Facts(places=Places(self.root), wanted=(server(port),))

    def nginx(self, text: str, port: int = 8080) -> list[str]:
        """Where something is held back, as ``file:line what``."""
        self.write("etc/nginx/nginx.conf", text)
        return [f"{Path(one.where).name} {one.remedy}" for one in check_nginx(self.found(port))]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def read(machine: Machine, text: str) -> list[Directive]:
    return parse(machine.write("etc/nginx/nginx.conf", text), machine.root / "etc/nginx", machine.root)


def test_nginx_language(machine: Machine) -> None:
    text = """\
# proxy_pass nothing;
user www-data; worker_processes auto;
http {
    log_format main '$remote_addr; "$request" {' "it\\"s";
    map $http_upgrade $c { default upgrade; '' close; }
    location ~ \\.php$ { return 200 "a{b};c"; }
    set $x ${y}z;
    set $q a'b;
}
"""
    user, workers, http = read(machine, text)
    assert (user.words, user.line) == (("user", "www-data"), 2)
    assert (workers.words, workers.line) == (("worker_processes", "auto"), 2)
    log, mapping, location, variable, quote = http.block
    assert log.words == ("log_format", "main", '$remote_addr; "$request" {', 'it\\"s')
    assert [one.words for one in mapping.block] == [("default", "upgrade"), ("", "close")]
    assert location.words == ("location", "~", "\\.php$")
    assert location.block[0].words == ("return", "200", "a{b};c")
    assert variable.words == ("set", "$x", "${y}z")
    assert (quote.words, quote.line) == (("set", "$q", "a'b"), 8)


@pytest.mark.parametrize("text", ["", "a", "a {", "a { b; ", "}", "a 'b", 'x "y; {', "a {}}}} b;", ";;;", "include;"])
def test_nginx_files_in_pieces(machine: Machine, text: str) -> None:
    assert isinstance(read(machine, text), list)


def test_nginx_includes(machine: Machine) -> None:
    machine.write("etc/nginx/conf.d/b.conf", "b 2;")
    machine.write("etc/nginx/conf.d/a.conf", "a 1;")
    machine.write("srv/more.conf", "more 3;")
    found = read(machine, "include conf.d/*.conf;\ninclude /srv/more.conf;\ninclude nothing.conf;\nlast 4;\n")
    assert [(one.words, one.file.name) for one in found] == [
        (("a", "1"), "a.conf"),
        (("b", "2"), "b.conf"),
        (("more", "3"), "more.conf"),
        (("last", "4"), "nginx.conf"),
    ]


def test_nginx_includes_itself(machine: Machine) -> None:
    found = read(machine, "include nginx.conf;\na 1;\n")
    assert len(found) == DEPTH_MAX + 1
    found = read(machine, "include nginx.conf;\n" * 3 + "a 1;\n")
    assert len(found) <= FILES_MAX


def test_nginx_blocks_without_end(machine: Machine) -> None:
    assert len(read(machine, "a {" * 10_000)) == 1


def test_nginx_upstreams_and_inheritance(machine: Machine) -> None:
    text = """\
http {
    proxy_buffering off;
    upstream app { server 127.0.0.1:8080 max_fails=0; server [::1]:8081; keepalive 8; }
    server {
        location / { proxy_pass http://app; }
        location /b/ { proxy_buffering on; proxy_pass http://app/x; }
    }
}
"""
    directives = read(machine, text)
    assert find_upstreams(directives) == {"app": ["127.0.0.1:8080", "[::1]:8081"]}
    first, second = find_passes(directives)
    assert (first.url, first.line, first.settings["proxy_buffering"]) == ("http://app", 5, ("off",))
    assert (second.url, second.line, second.settings["proxy_buffering"]) == ("http://app/x", 6, ("on",))


@pytest.mark.parametrize(
    ("target", "is_ours"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.0.0.1:8080/path", True),
        ("http://localhost:8080", True),
        ("http://[::1]:8080", True),
        ("http://127.9.9.9:8080", True),
        ("http://127.0.0.1:8081", False),
        ("http://192.0.2.1:8080", False),
        ("http://127.0.0.1:$port", False),
        ("$target", False),
        ("http://unix:/run/x.sock", False),
        ("http://127.0.0.1", False),
    ],
)
def test_nginx_in_front_of_whom(machine: Machine, target: str, is_ours: bool) -> None:
    assert len(machine.nginx(f"server {{ location / {{ proxy_pass {target}; }} }}")) == (2 if is_ours else 0)


def test_nginx_default_ports(machine: Machine) -> None:
    text = "proxy_request_buffering off; server { location / { proxy_pass https://127.0.0.1; } }"
    assert machine.nginx(text) == []
    assert machine.nginx(text, 443) == ["nginx.conf:1 add there: proxy_buffering off;"]


def test_nginx_as_the_page_has_it(machine: Machine) -> None:
    page = (ROOT / "docs/howto/front-proxy.md").read_text()
    recipe = page.partition("```nginx\n")[2].partition("```")[0]
    assert "8080" in recipe
    assert machine.nginx(recipe) == []
    assert len(machine.nginx(recipe.replace("proxy_buffering", "# "))) == 1


def test_no_proxy_at_all(machine: Machine) -> None:
    found = machine.found()
    assert [*check_nginx(found), *check_haproxy(found), *check_zurl(found)] == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("backend b\n    option http-buffer-request\n    server a 127.0.0.1:8080\n", ["2"]),
        ("listen b\n    server a 127.0.0.1:8080 check\n    option http-buffer-request # all\n", ["3"]),
        ("defaults\n    option http-buffer-request\nbackend b\n    server a localhost:8080\n", ["2"]),
        ("backend b\n    # option http-buffer-request\n    server a 127.0.0.1:8080\n", []),
        ("backend b\n    no option http-buffer-request\n    server a 127.0.0.1:8080\n", []),
        ("backend b\n    option http-buffer-request\n    server a 192.0.2.1:8080\n", []),
        ("  stray\n\nbackend b\n    server a\n    server b c:d\n", []),
    ],
)
def test_haproxy(machine: Machine, text: str, lines: list[str]) -> None:
    machine.write("etc/haproxy/haproxy.cfg", text)
    assert [one.where.rpartition(":")[2] for one in check_haproxy(machine.found())] == lines


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("defpolicy=deny\n", []),
        (f"deny={','.join(PRIVATE)}\n", []),
        ("deny=0.*,10.*,100.64.0.0/10,127.*,169.254.*,172.16.0.0/12,192.168.*\n", []),
        ("# nothing\n", ["0.0.0.0/8, 10.0.0.0/8"]),
        (f"deny = {', '.join(PRIVATE[1:])} \n", ["may reach 0.0.0.0/8;"]),
        (f"deny={','.join(PRIVATE)}\nallow_ipv6=true\n", ["allow_ipv6"]),
        (f"deny={','.join(PRIVATE)},::/0\nallow_ipv6=true\n", []),
        ("defpolicy=deny\nipc_file_mode=666\n", ["ipc_file_mode=666"]),
        ("defpolicy=deny\nipc_file_mode=junk\n", []),
    ],
)
def test_zurl(machine: Machine, text: str, problems: list[str]) -> None:
    machine.write("etc/zurl.conf", f"[General]\n{text}")
    found = [one.what for one in check_zurl(machine.found())]
    assert len(found) == len(problems)
    assert all(part in what for part, what in zip(problems, found, strict=True))
