"""What all pages have in common; what they do is seen in tests/system/test_pages.py."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from m2gate import TestClient
from m2gate.app.folder import load_folder
from tests.handlers.conftest import HANDLERS

NAMES = [path.stem for path in sorted(HANDLERS.glob("[!_]*.py"))]
VOID = {"br", "img", "input", "link", "meta"}


class Outline(HTMLParser):
    """Checks that elements are closed in order; collects ids and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action"):
                self.addresses.append(value or "")
            if name.startswith("on") or name == "style":
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


@pytest.fixture(scope="module")
def folder() -> Iterator[TestClient]:
    with TestClient(load_folder(HANDLERS)) as client:
        yield client


def test_index_has_a_card_for_each(folder: TestClient) -> None:
    page = folder.get("/").text
    assert re.findall(r'<a href="([^"]*)">', page) == [f"{name}/" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_page_is_sound_and_keeps_to_itself(folder: TestClient, name: str) -> None:
    answer = folder.get(f"/{name}/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    outline = Outline()
    outline.feed(answer.text)
    outline.close()
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.handlers == []
    elsewhere = [one for one in outline.addresses if not one.startswith("data:") and ("//" in one or one[:1] == "/")]
    assert [one for one in elsewhere if not one.startswith(f"/{name}/")] == []
    assert "innerHTML" not in answer.text
    assert (HANDLERS / f"{name}.py").read_text().splitlines()[-1].strip() in answer.text.replace("&quot;", '"')


@pytest.mark.parametrize("name", NAMES)
def test_address_without_the_slash(folder: TestClient, name: str) -> None:
    answer = folder.get(f"/{name}?a=1")
    assert (answer.status, answer.headers["Location"]) == (308, f"/{name}/?a=1")
