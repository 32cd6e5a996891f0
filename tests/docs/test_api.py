"""docs/reference/api.md is what scripts/docs makes of the docstrings, and has all of them."""

import re
import subprocess
import sys

import m2gate
from tests.docs.blocks import ROOT


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts/docs"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_exported_name_has_a_section() -> None:
    headings = {line for line in (ROOT / "docs/reference/api.md").read_text().splitlines() if line.startswith("## ")}
    assert headings >= {f"## {name}" for name in m2gate.__all__ if name != "__version__"}


def test_every_section_says_something() -> None:
    sections = re.split(r"^##+ ", (ROOT / "docs/reference/api.md").read_text(), flags=re.MULTILINE)[1:]
    silent = [
        section.splitlines()[0] for section in sections if not re.search(r"^[^\s ]", section.partition("\n")[2], re.M)
    ]
    assert silent == []
