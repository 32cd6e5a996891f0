"""Runs the code blocks of a Markdown page the way its reader would.

A ``python`` block is saved where the text before it says (a file name such as `app.py` in the last paragraph), and run
as a program if no name is given. A ``console`` block has commands behind ``$ `` and what they print below; ``...``
stands for anything. ``m2gate run`` and ``scripts/run`` keep running until the page starts the next one or ends.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
ADDRESS: Final = ("127.0.0.1", 6767)  # where the pages say that m2gate listens
FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME: Final = re.compile(r"`([\w/]+\.(?:py|html))`")
SERVER: Final = re.compile(r"(m2gate|scripts/)\s*run\b")
START_S: Final = 120.0  # scripts/run may have an environment to make first
FREE_S: Final = 60.0  # for a server on the address of the pages to end
COMMAND_S: Final = 60.0
RELOAD_S: Final = 20.0


@dataclass(frozen=True)
class Block:
    """One fenced block: file is where the text before it says that it is to be saved, "" if nowhere."""

    language: str
    text: str
    line: int
    file: str


@dataclass(frozen=True)
class Command:
    """One command of a console block, with the lines that it prints."""

    text: str
    expected: tuple[str, ...]


def read_blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    blocks = []
    for match in FENCE.finditer(text):
        paragraph = text[: match.start()].rstrip().rpartition("\n\n")[2]
        names = FILE_NAME.findall(paragraph) if "```" not in paragraph else []
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Block(match[1], match[2], line, names[-1] if names else ""))
    return blocks


def read_commands(text: str) -> list[Command]:
    """The commands of a console block. Raises ValueError when it does not start with one."""
    if not text.startswith("$ "):
        raise ValueError(f"a console block starts with '$ ': {text!r}")
    commands = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines()
        while first.endswith("\\"):
            first = first[:-1] + rest.pop(0).removeprefix("> ")
        commands.append(Command(first, tuple(rest)))
    return commands


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Whether the output is what the page shows; ``...`` stands for anything, on a line of its own for any lines."""
    pattern = re.escape("\n".join(expected).rstrip("\n")).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, printed.rstrip("\n"), re.DOTALL) is not None


def listens() -> bool:
    """Whether something listens where the pages say."""
    with suppress(OSError), socket.create_connection(ADDRESS, timeout=1):
        return True
    return False


class Session:
    """A reader with a directory and two terminals: one in which m2gate runs, one for everything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[bytes] | None = None
        self.reloads = False
        bin_folder = str(Path(sys.executable).parent)
        self.environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> "Session":
        # Somebody else's may end soon: nothing else on these pages tolerates another port.
        deadline = time.monotonic() + FREE_S
        while listens():
            assert time.monotonic() < deadline, f"{ADDRESS[0]}:{ADDRESS[1]} is in use; the pages need it"
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.server is not None and kind is not None:
            print((self.folder / "server.err").read_text())
        self.stop_server()

    def run(self, block: Block) -> None:
        """Do what a reader would do with the block. Raises AssertionError when it goes otherwise."""
        if block.language == "console":
            for command in read_commands(block.text):
                self.run_command(command)
        elif block.file:
            (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.file).write_text(block.text)
        else:
            assert block.language == "python", f"a block of {block.language!r} that is saved nowhere"
            done = self.execute([sys.executable, "-c", block.text])
            assert done.returncode == 0, done.stderr

    def run_command(self, command: Command) -> None:
        """Run one command and compare what it prints."""
        if command.text == "scripts/test":
            # The program that runs these tests; started here it would start itself without end.
            assert os.access(ROOT / "scripts/test", os.X_OK)
        elif SERVER.match(command.text):
            self.start_server(command)
        else:
            self.compare(command)

    def compare(self, command: Command) -> None:
        """Run a command that ends; with --reload a changed file needs a moment until it is served."""
        deadline = time.monotonic() + (RELOAD_S if self.reloads else 0)
        while True:
            done = self.execute(["bash", "-c", command.text])
            if matches(command.expected, done.stdout):
                return
            if time.monotonic() >= deadline:
                shown = "\n".join(command.expected)
                raise AssertionError(f"$ {command.text}\nprinted\n{done.stdout}{done.stderr}\nthe page says\n{shown}")
            time.sleep(0.1)

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program in the reader's directory."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )

    def start_server(self, command: Command) -> None:
        """Start m2gate in the first terminal and wait until it has printed what the page shows."""
        self.stop_server()
        self.reloads = "--reload" in command.text
        output = self.folder / "server.out"
        folder = ROOT if command.text.startswith("scripts/") else self.folder
        with output.open("wb") as out, (self.folder / "server.err").open("wb") as err:
            line = ["bash", "-c", f"exec {command.text}"]
            self.server = subprocess.Popen(line, cwd=folder, env=self.environment, stdout=out, stderr=err)
        deadline = time.monotonic() + START_S
        while not matches(command.expected, output.read_text()):
            ended = self.server.poll()
            assert ended is None, f"$ {command.text} ended with {ended}"
            assert time.monotonic() < deadline, f"$ {command.text} printed {output.read_text()!r}"
            time.sleep(0.05)

    def stop_server(self) -> None:
        """Press Ctrl-C in the first terminal: m2gate ends with status 0 and listens no more."""
        if self.server is None:
            return
        server, self.server = self.server, None
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
        status = server.wait(timeout=40)
        assert status == 0, f"m2gate run ended with {status}: {(self.folder / 'server.err').read_text()}"
        assert not listens()
