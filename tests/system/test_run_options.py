"""The options of ``m2gate run``."""

import signal
import socket
import ssl
from functools import partial
from pathlib import Path

import pytest

from tests.system.runs import fails, get
from tests.system.support import m2gate_run, make_pair, peer_certificate, wait_until


def test_static_folder(app: Path) -> None:
    public = app.parent / "public"
    public.mkdir()
    (public / "page.html").write_text("<p>page</p>")
    with m2gate_run(app, "--static", "/files=public", cwd=app.parent) as run:
        assert get(run, "/files/page.html") == "<p>page</p>"
        assert get(run) == "one"


def test_static_folder_with_a_neighbour_that_would_be_served(app: Path) -> None:
    (app.parent / "public").mkdir()
    (app.parent / "public-not").mkdir()
    status, line = fails(app, "--static", "/files=public", cwd=app.parent)
    assert status == 2
    assert "Mongrel2 would serve public-not beside it" in line


@pytest.mark.checklist("mongrel2", 64)
def test_tls_with_names(app: Path) -> None:
    certs = app.parent / "certs"
    certs.mkdir()
    pairs = {name: make_pair(certs, name, [name]) for name in ("a.test", "b.test")}
    with m2gate_run(app, "--tls-certs", "certs", cwd=app.parent) as run:
        assert run.url.startswith("https://")
        for name, file in pairs.items():
            assert peer_certificate(run.port, name) == ssl.PEM_cert_to_DER_cert(file.read_text())
        context = ssl.create_default_context(cafile=pairs["a.test"])
        with (
            socket.create_connection(("127.0.0.1", run.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="a.test") as secure,
        ):
            secure.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: secure.recv(4096), b""))
        assert answer.endswith(b"one\n")


@pytest.mark.checklist("mongrel2", 64)
def test_hangup_reads_certificates_again(app: Path) -> None:
    certs = app.parent / "certs"
    certs.mkdir()
    make_pair(certs, "a.test", ["a.test"])
    with m2gate_run(app, "--tls-certs", certs) as run:
        peer_certificate(run.port, "a.test")
        files = {name: make_pair(certs, name, [name]) for name in ("a.test", "b.test")}
        wanted = {name: ssl.PEM_cert_to_DER_cert(file.read_text()) for name, file in files.items()}
        run.process.send_signal(signal.SIGHUP)
        for name, certificate in wanted.items():
            wait_until(partial(shows, run.port, name, certificate), f"the new certificate of {name} is shown")
        (certs / "a.test.key").unlink()
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the certificates of before go on" in run.stderr, "the half pair is said")
        assert run.process.poll() is None


def shows(port: int, name: str, certificate: bytes) -> bool:
    return peer_certificate(port, name) == certificate


def test_access_log_file(app: Path) -> None:
    log = app.parent / "access.log"
    with m2gate_run(app, "--access-log", "access.log", cwd=app.parent) as run:
        get(run, "/pid")
        wait_until(lambda: log.exists() and '"path": "/pid"' in log.read_text(), "the line is there")
        assert "/pid" not in run.stderr


@pytest.mark.parametrize(("options", "expected"), [([], 0), (["--access-log"], 1)])
def test_access_log_on_stderr_only_if_asked_for(app: Path, options: list[str], expected: int) -> None:
    with m2gate_run(app, *options) as run:
        get(run, "/pid")
        run.stop()
        assert run.stderr.count('"path": "/pid"') == expected


def test_no_patch(app: Path) -> None:
    app.write_text(
        "import threading\nfrom m2gate import App\napp = App()\n@app.get('/')\ndef f(request):\n"
        "    from gevent import monkey\n    return str(monkey.is_module_patched('threading'))\n"
    )
    with m2gate_run(app) as run:
        assert get(run) == "True"
    with m2gate_run(app, "--no-patch") as run:
        assert get(run) == "False"


def test_prints_of_the_app_do_not_go_to_stdout(app: Path) -> None:
    app.write_text("print('hello from the app', flush=True)\n" + app.read_text())
    with m2gate_run(app) as run:
        run.stop()
        assert run.stdout == f"listening on {run.url}\n"
        assert "hello from the app" in run.stderr
