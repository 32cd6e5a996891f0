"""Every code block of README, tutorial and the pages named here does what the page says."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Session, matches, read_blocks, read_commands

PAGES = [
    "README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs/tutorial").glob("*.md")),
    "docs/howto/publish.md",
]
RUN = {"python", "console", "html"}
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.system
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_as_it_stands(page: str, tmp_path: Path) -> None:
    blocks = read_blocks((ROOT / page).read_text())
    assert blocks
    with Session(tmp_path) as session:
        for block in blocks:
            assert block.language in RUN, f"{page}:{block.line}: a block that nobody can run"
            print(f"{page}:{block.line}")
            session.run(block)


def test_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text())
        if not re.match(r"https?:", target) and not (page.parent / target).exists()
    ]
    assert broken == []


PAGE = "Save it as `a.py`:\n\n```python\nx = 1\n```\n\nThen\n\n```console\n$ echo hi \\\n> ho\nhi ho\n$ true\n```\n"


def test_read_blocks() -> None:
    first, second = read_blocks(PAGE)
    assert (first.language, first.text, first.line, first.file) == ("python", "x = 1\n", 3, "a.py")
    assert (second.language, second.file) == ("console", "")
    assert [(c.text, c.expected) for c in read_commands(second.text)] == [("echo hi ho", ("hi ho",)), ("true", ())]


@pytest.mark.parametrize(
    ("expected", "printed", "result"),
    [
        pytest.param(("a",), "a\n", True, id="equal"),
        pytest.param(("a",), "ab\n", False, id="more"),
        pytest.param(("a", "...", "d"), "a\nb\nc\nd\n", True, id="lines"),
        pytest.param(("at ... now",), "at 12:00 now\n", True, id="part"),
        pytest.param(("a.c",), "abc\n", False, id="literal"),
        pytest.param((), "x\n", False, id="nothing-expected"),
    ],
)
def test_matches(expected: tuple[str, ...], printed: str, result: bool) -> None:
    assert matches(expected, printed) is result
