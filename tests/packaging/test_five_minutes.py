"""The page "From apt install to https in five minutes", done word for word on a minimal Debian 12."""

import re
import shutil
from pathlib import Path
from typing import Final

from tests.packaging.conftest import ROOT, Machine

PAGE: Final = ROOT / "docs/howto/install.md"
FILE: Final = re.compile(r"`(/[\w/.-]+\.(?:py|toml))`")


def steps(text: str) -> str:
    """Return the page's blocks as a script: a block is a file if the text before it names one, else commands."""
    lines = ["mkdir -p /run/systemd/system", "cd /root"]
    parts = re.split(r"((?:^(?: {4}.*)?\n)*^ {4}.*\n)", text, flags=re.MULTILINE)
    for before, block in zip(parts[::2], parts[1::2], strict=False):
        body = re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip("\n")
        paragraph = before.rstrip().rpartition("\n\n")[2]
        named = FILE.search(paragraph)
        if named:
            lines += [f"mkdir -p $(dirname {named[1]})", f"cat > {named[1]} <<'END'", body, "END"]
        else:
            lines.append(body)
    return "\n".join(lines) + "\n"


def test_the_page(deb: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    shutil.copy(deb, machine.root / "root")
    said = machine.run(steps(PAGE.read_text().partition("## Later")[0]))
    assert said.rstrip().endswith("hello from shop.example")
    assert "hello from" not in said.rstrip().rpartition("\n")[0]
    assert "shop" in said
    shutil.rmtree(tmp_path)
