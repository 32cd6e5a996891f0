"""An installation below M2GATE_ROOT that runs: Mongrel2 servers, a gateway and workers, started as by their units."""

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from m2gate.site.load import find_program
from m2gate.site.places import Places
from tests.system.processes import accepts, environment, free_port, make_pair, short_directory, stop_process, wait_until

APP = """
from m2gate import App

app = App()


@app.get("/")
@app.get("/{{rest:path}}")
def answer(request, rest=""):
    return f"{name} {{request.scheme}} {{request.path}}"
"""


class Deployment:
    """Sites at one plain and one TLS address; ``run`` starts what config apply asks for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.places = places = Places(root)
        self.plain, self.secure = free_port(), free_port()
        for folder in (places.available, places.certs, places.handlers, places.control, places.logs, root / "srv"):
            folder.mkdir(parents=True)
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def site(self, name: str, hosts: list[str], *, routes: str = "", options: str = "") -> None:
        """Write a site with a handler of its name, which tells its name; and a pair for each host."""
        (self.root / f"srv/{name}.py").write_text(APP.format(name=name))
        (self.places.available / f"{name}.toml").write_text(
            f"hosts = {hosts}\n"
            f'listen = ["127.0.0.1:{self.plain}", "127.0.0.1:{self.secure} tls"]\n{options}\n'
            f'[handler.{name}]\ntarget = "{self.root}/srv/{name}.py"\n'
            f'[[route]]\npath = "/"\nhandler = "{name}"\n{routes}\n'
        )
        for host in hosts:
            make_pair(self.places.certs, host.replace("*", "_"), [host])

    def m2gate(self, *arguments: str, status: int = 0) -> str:
        """Run a command; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "m2gate", *arguments],
            env=self.environment,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        return environment(M2GATE_ROOT=str(self.root))

    def start(self, name: str, *command: str) -> None:
        output = (self.root / f"{name}.out").open("w+")
        with output:
            self.processes[name] = subprocess.Popen(
                command, env=self.environment, cwd=self.root, stdout=output, stderr=output, text=True
            )

    def said(self, name: str) -> str:
        """Return what a process has printed."""
        return (self.root / f"{name}.out").read_text()

    def run(self, *handlers: str, count: int = 1) -> None:
        """Start servers, gateway and workers, and wait until they serve."""
        with closing(sqlite3.connect(self.places.database)) as connection:
            servers = connection.execute("select uuid, port from server").fetchall()
        for uuid, port in servers:
            self.start(uuid, find_program("mongrel2"), str(self.places.database), uuid)
            wait_until(lambda port=port: accepts(port), f"{uuid} listens")  # type: ignore[misc]
        self.start("gateway", sys.executable, "-m", "m2gate", "gateway")
        for handler in handlers:
            self.start_worker(handler, count=count)

    def start_worker(self, handler: str, count: int = 1) -> None:
        self.start(handler, sys.executable, "-m", "m2gate", "worker", handler, "--count", str(count))
        wait_until(lambda: "attached to gateway" in self.said(handler), f"{handler} is ready", 20)

    def hang_up(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGHUP)

    def close(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            stop_process(process)


@contextmanager
def deployment() -> Iterator[Deployment]:
    """Make an installation; whatever it has started is stopped."""
    with short_directory() as folder:
        one = Deployment(folder)
        try:
            yield one
        finally:
            one.close()
