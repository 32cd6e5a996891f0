"""Just as much of nginx's configuration language as it takes to see where requests go, and who buffers them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FILES_MAX: Final = 500
DEPTH_MAX: Final = 50  # of blocks and includes within each other; a file that includes itself ends here

_TOKEN: Final = re.compile(
    r"""\s+ | \#[^\n]* | (?P<mark>[{};]) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)' """
    r"""| (?P<word>(?:\$\{[^}]*\}|[^\s{};"'\#]|(?<=\S)["'\#])+)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True, kw_only=True)
class Directive:
    """A directive with its place; ``block`` is empty where it has none."""

    words: tuple[str, ...]
    file: Path
    line: int
    block: list["Directive"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The first word."""
        return self.words[0]


def parse(file: Path, folder: Path, root: Path) -> list[Directive]:
    """Return the directives of a file, with those that it includes in their place.

    folder: where relative includes begin; absolute ones are taken below root.
    A file that cannot be read or understood yields what comes before the trouble. At FILES_MAX files and DEPTH_MAX
    levels the rest is left out.
    """
    return _Parser(folder, root).read(file)


class _Parser:
    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._left = FILES_MAX

    def read(self, file: Path, depth: int = 0) -> list[Directive]:
        if self._left == 0 or depth > DEPTH_MAX:
            return []
        self._left -= 1
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return self._block(_tokens(text), file, depth)

    def _block(self, tokens: Iterator[tuple[str, bool, int]], file: Path, depth: int) -> list[Directive]:
        found: list[Directive] = []
        if depth > DEPTH_MAX:
            return found
        words: list[str] = []
        line = 0
        for text, is_mark, at in tokens:
            line = line if words else at
            if not is_mark:
                words.append(text)
            elif text == "}":
                break
            elif words:
                block = self._block(tokens, file, depth + 1) if text == "{" else []
                found += self._resolve(Directive(words=tuple(words), file=file, line=line, block=block), depth)
                words = []
        return found

    def _resolve(self, one: Directive, depth: int) -> list[Directive]:
        if one.name != "include" or len(one.words) != 2:
            return [one]
        pattern = one.words[1]
        base = self._root if pattern.startswith("/") else self._folder
        try:
            files = sorted(base.glob(pattern.lstrip("/")))
        except (OSError, ValueError):
            return []
        return [directive for file in files for directive in self.read(file, depth + 1)]


def _tokens(text: str) -> Iterator[tuple[str, bool, int]]:
    """Yield text, whether it is one of ``{ } ;``, and its line."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return
        kind = match.lastgroup
        if kind is not None:
            yield match[kind], kind == "mark", text.count("\n", 0, at) + 1
        at = match.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A ``proxy_pass``, and the directives that count for it, inherited ones included; the innermost wins."""

    url: str
    file: Path
    line: int
    settings: dict[str, tuple[str, ...]]


def find_passes(directives: list[Directive], outer: dict[str, tuple[str, ...]] | None = None) -> Iterator[Passed]:
    """Yield each proxy_pass with the directives ``proxy_*`` around it."""
    settings = dict(outer or {})
    settings |= {one.name: one.words[1:] for one in directives if one.name.startswith("proxy_") and not one.block}
    for one in directives:
        if one.name == "proxy_pass" and len(one.words) == 2:
            yield Passed(url=one.words[1], file=one.file, line=one.line, settings=settings)
        elif one.block:
            yield from find_passes(one.block, settings)


def find_upstreams(directives: list[Directive]) -> dict[str, list[str]]:
    """Return the addresses of each ``upstream`` by its name."""
    found: dict[str, list[str]] = {}
    for one in directives:
        if one.name == "upstream" and len(one.words) == 2:
            found[one.words[1]] = [
                server.words[1] for server in one.block if server.name == "server" and server.words[1:]
            ]
        elif one.block:
            found |= find_upstreams(one.block)
    return found
