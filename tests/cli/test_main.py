"""The command as a shell sees it: exit codes, one-line errors, quick help."""

import subprocess
import sys
from pathlib import Path

import pytest

from m2gate import version as version_module
from tests.system.support import environment


def m2gate(*args: str, cwd: Path | None = None, module: str = "m2gate") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *args],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("module", ["m2gate", "m2gate.cli"])
def test_version(module: str) -> None:
    done = m2gate("--version", module=module)
    assert (done.returncode, done.stdout) == (0, f"m2gate {version_module.__version__}\n")
    lines = dict(line.split(" ", 1) for line in m2gate("version", module=module).stdout.splitlines())
    assert list(lines) == ["m2gate", "python", "pyzmq", "libzmq", "gevent", "tnetstring3", "mongrel2"]
    assert all(value[0].isdigit() for value in lines.values())


def test_version_without_mongrel2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = m2gate("version")
    assert done.returncode == 0
    assert "mongrel2 not installed" in done.stdout


@pytest.mark.parametrize(
    "command", [[], ["run"], ["worker"], ["gateway"], ["config"], ["config", "render"], ["version"]]
)
def test_help(command: list[str]) -> None:
    done = m2gate(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {' '.join(['m2gate', *command])}")


def test_help_of_run_names_every_option() -> None:
    text = m2gate("run", "--help").stdout
    options = ["--bind", "--reload", "--static", "--tls-certs", "--access-log", "--drain-timeout", "--no-patch"]
    options += ["--workers", "--gateway", "--publish-http", "--publish-pull", "--publish-sub", "--metrics"]
    assert all(option in text for option in options)


def test_help_of_worker_names_every_option() -> None:
    text = m2gate("worker", "--help").stdout
    options = ["--count", "--attach", "--reload", "--access-log", "--drain-timeout", "--max-requests", "--no-patch"]
    assert all(option in text for option in options)


HELP = """
import sys
sys.argv = ["m2gate", *sys.argv[1:], "--help"]
from m2gate.cli import main
try:
    main()
except SystemExit:
    pass
print(sorted(sys.modules.keys() & {"zmq", "gevent", "jinja2", "werkzeug", "sqlite3", "tnetstring"}))
"""


@pytest.mark.parametrize("command", ["run", "worker", "gateway"])
def test_help_imports_no_machinery(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "[]"


USAGE = [
    pytest.param(["--nonsense"], "--nonsense", "; see m2gate --help\n", id="option"),
    pytest.param(["run", "--workers", "0"], "--workers", "; see m2gate run --help\n", id="bound"),
    pytest.param(["serve"], "serve", "; see m2gate --help\n", id="command"),
    pytest.param(["run", "--drain-timeout", "soon"], "--drain-timeout", "; see m2gate run --help\n", id="number"),
]


@pytest.mark.parametrize(("args", "culprit", "remedy"), USAGE)
def test_usage_errors_are_one_line(args: list[str], culprit: str, remedy: str) -> None:
    done = m2gate(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("m2gate: ")
    assert culprit in done.stderr
    assert done.stderr.endswith(remedy)
    assert done.stderr.count("\n") == 1


def test_run_without_target_teaches(tmp_path: Path) -> None:
    done = m2gate("run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("m2gate: Say what to run: there is neither app.py nor handlers/ here.")
    assert done.stderr.count("\n") == 1


BAD_OPTIONS = [
    pytest.param(["--bind", "127.0.0.1"], "--bind = '127.0.0.1': no port", id="no-port"),
    pytest.param(["--bind", "127.0.0.1:70000"], "no port from 0 to 65535", id="high-port"),
    pytest.param(["--bind", "shop.example:80"], "'shop.example' is no IP address", id="host-name"),
    pytest.param(["--static", "public"], "not of the form /URL=DIR", id="static-form"),
    pytest.param(["--static", "/s=nothing"], "there is no folder", id="static-folder"),
    pytest.param(["--static", "/=."], "it would hide all of the handlers", id="static-root"),
    pytest.param(["--static", "/s=.", "--static", "/s/=."], "/s/ is given twice", id="static-twice"),
    pytest.param(["--static", "/a b=."], "the path has characters", id="static-blank"),
    pytest.param(["--static", "/a(b=."], "the path has characters", id="static-pattern"),
    pytest.param(["--tls-certs", "nothing"], "this folder cannot be read", id="certificates"),
]


@pytest.mark.parametrize(("args", "problem"), BAD_OPTIONS)
@pytest.mark.parametrize("command", [["run", "app.py"], ["config", "check"], ["config", "render"]])
def test_bad_options(command: list[str], args: list[str], problem: str, tmp_path: Path) -> None:
    done = m2gate(*command, *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("m2gate: ")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


WRONG_COMMANDS = [
    pytest.param(["gateway", "-c", "nothing.toml"], "-c = 'nothing.toml': cannot be read: No such file", id="no-file"),
    pytest.param(["gateway", "-c", "app.py"], "servers = None: a gateway has 1 to 64 servers", id="no-servers"),
    pytest.param(["worker", "app.py", "--attach", "direct:shop"], "direct: is not there yet", id="direct"),
    pytest.param(
        ["run", "app.py", "--publish-http", "here:1"], "--publish-http = 'here:1': 'here' is no IP", id="input"
    ),
]


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["gateway"], "no site is enabled in {root}/etc/m2gate/sites-enabled"),
        (["worker", "shop"], "shop: no enabled site has such a handler"),
    ],
)
def test_what_is_not_enabled_fails_in_one_line(
    args: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M2GATE_ROOT", str(tmp_path))
    done = m2gate(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"m2gate: {problem.format(root=tmp_path)}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("args", "problem"), WRONG_COMMANDS)
def test_what_cannot_be_is_one_line(args: list[str], problem: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    done = m2gate(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("m2gate: ")
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("value", ["hello.py", ".", "nothing/access.log"])
def test_access_log_is_no_target(value: str, tmp_path: Path) -> None:
    (tmp_path / "hello.py").touch()
    done = m2gate("run", "--access-log", value, cwd=tmp_path)
    assert done.returncode == 2
    assert "this is no place for a log" in done.stderr
    assert (tmp_path / "hello.py").read_bytes() == b""
