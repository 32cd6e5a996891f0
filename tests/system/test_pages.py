"""The examples' pages in a real browser, two windows where it takes two, and a picture of each.

Pictures go to the folder $M2GATE_SCREENSHOTS, without it to one of pytest's.
"""

import hashlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.browser import Browser, chromium
from tests.system.runs import get
from tests.system.support import ROOT, M2GateRun, m2gate_run, wait_until

NAMES = [path.stem for path in sorted((ROOT / "handlers").glob("[!_]*.py"))]
SCRIPT = '<img src=x onerror="document.title=1"><b>bold</b>'


@pytest.fixture(scope="module")
def examples() -> Iterator[M2GateRun]:
    with m2gate_run(ROOT / "handlers", "--drain-timeout", "1") as run:
        yield run


@pytest.fixture(scope="module")
def one_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    """The browser with one blank window; whatever its windows complain about fails the test."""
    one_browser.keep_one_window()
    one_browser.take_console()
    yield one_browser
    assert one_browser.take_console() == []


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("M2GATE_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# What a person who does not see the page, or has no mouse, could not use.
UNNAMED = """
const named = (one) => one.labels?.length || one.ariaLabel || (one.tagName === "BUTTON" && one.innerText.trim());
return [...document.querySelectorAll("input, select, textarea, button, progress")]
  .filter((one) => one.checkVisibility() && !named(one)).map((one) => one.outerHTML);
"""


def shoot(browser: Browser, pictures: Path, name: str) -> None:
    """Take pictures of the page as it is now; on a narrow screen nothing may stick out to the right."""
    assert browser.run(UNNAMED) == []
    assert browser.run("return document.documentElement.lang") == "en"
    for size, scheme in (("narrow", "dark"), ("wide", "dark"), ("narrow", "light"), ("wide", "light")):
        browser.emulate(size, scheme)
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), f"{name} {size}"
        browser.picture(pictures / f"{name}-{size}-{scheme}.png")


def test_index_leads_to_every_page(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/")
    found = browser.run("return [...document.querySelectorAll('a')].map((a) => [a.href, a.innerText.split('\\n')[0]])")
    assert [url for url, _ in found] == [f"{examples.url}/{name}/" for name in NAMES]
    shoot(browser, pictures, "index")
    for url, title in found:
        browser.open(url)
        assert browser.driver.title == title
        assert browser.run("return document.querySelector('h1').textContent") == title
        browser.run("document.querySelector('header a').click()")
        wait_until(lambda: browser.driver.current_url == f"{examples.url}/", f"the way back from {url}")


def test_hello(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/hello/")
    browser.click("send")
    browser.wait_text("status", "200")
    assert browser.text("answer") == "Hello World"
    browser.choose("choice", "GET greet/Wörld?greeting=Good morning,")
    browser.click("send")
    browser.wait_text("answer", "Good morning, Wörld")
    browser.choose("choice", "GET tea")
    browser.click("send")
    browser.wait_text("status", "418")
    assert browser.text("answer") == "short and stout"
    complaint = browser.take_console()
    assert len(complaint) == 1
    assert "hello/tea" in complaint[0]
    assert "418" in complaint[0]
    shoot(browser, pictures, "hello")
    browser.run("document.querySelector('summary').click()")
    assert "def greet(request: Request, name: str) -> str:" in browser.run(
        "return document.querySelector('details').innerText"
    )
    shoot(browser, pictures, "hello-code")


def test_upload_shows_progress_and_the_right_digest(
    examples: M2GateRun, browser: Browser, pictures: Path, tmp_path: Path
) -> None:
    # More than the sockets between browser and handler hold, so that the browser has to wait.
    content = random.Random(1).randbytes(48 << 20)
    (tmp_path / "large.bin").write_bytes(content)
    browser.open(f"{examples.url}/upload/")
    browser.find("file").send_keys(str(tmp_path / "large.bin"))
    browser.click("slow")
    browser.click("send")
    seen: set[float] = set()

    def under_way() -> bool:
        seen.add(float(browser.run("return document.getElementById('bar').value")))
        return len([value for value in seen if 0 < value < 1]) >= 5

    wait_until(under_way, "five positions of the bar")
    shoot(browser, pictures, "upload-under-way")
    browser.wait_text("state", "Done.", 30)
    assert browser.text("digest") == hashlib.sha256(content).hexdigest()
    assert browser.wait_text("verdict", "equal") == "equal"
    assert browser.text("bytes").startswith(f"{len(content)} bytes in ")
    assert browser.find("bar").get_property("value") == 1
    shoot(browser, pictures, "upload")


def test_stopped_upload_leaves_the_page_usable(examples: M2GateRun, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "zeros.bin").write_bytes(bytes(24 << 20))
    browser.open(f"{examples.url}/upload/")
    browser.find("file").send_keys(str(tmp_path / "zeros.bin"))
    browser.click("slow")
    browser.click("send")
    browser.wait_text("state", "sent")
    browser.click("stop")
    browser.wait_text("state", "Stopped")
    browser.click("slow")
    browser.click("send")
    browser.wait_text("verdict", "equal")


def test_clock_ticks(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/clock/")
    wait_until(lambda: int(browser.text("ticks")) >= 3, "three ticks")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", browser.text("time"))
    assert browser.text("state") == "connected"
    assert browser.text("watchers") == "1"
    first = browser.window
    second = browser.new_window(f"{examples.url}/clock/")
    browser.wait_text("watchers", "2")
    shoot(browser, pictures, "clock")
    browser.driver.close()
    assert second not in browser.driver.window_handles
    browser.go_to(first)
    assert browser.wait_text("watchers", "1") == "1"
    browser.click("switch")
    assert browser.text("state") == "stopped"


def test_chat_between_two_windows(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/chat/")
    ann = browser.window
    browser.fill("name", "Ann")
    browser.wait_text("state", "connected as Ann")
    browser.wait_text("log", "joined")
    browser.fill("text", "too early for Bob")
    browser.wait_text("log", "too early")
    bob = browser.new_window(f"{examples.url}/chat/")
    browser.fill("name", "Bob")
    browser.wait_text("log", "Bobjoined")
    browser.fill("text", "hello Ann")
    browser.wait_text("log", "hello Ann")
    assert "too early" not in browser.text("log")
    browser.go_to(ann)
    browser.wait_text("log", "hello Ann")
    browser.fill("text", SCRIPT)
    browser.wait_text("log", SCRIPT)
    browser.go_to(bob)
    browser.wait_text("log", SCRIPT)
    assert browser.run("return document.querySelectorAll('#log img, #log b').length") == 0
    shoot(browser, pictures, "chat")
    browser.click("leave")
    browser.go_to(ann)
    browser.wait_text("log", "Bobleft")


def test_board_shows_what_another_window_posts(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/board/")
    reader = browser.window
    browser.wait_text("state", "a poll waits")
    browser.new_window(f"{examples.url}/board/")
    for number in range(5):
        browser.fill("text", f"message {number} {SCRIPT}")
        browser.wait_text("log", f"message {number}")
    browser.go_to(reader)
    browser.wait_text("log", "message 4")
    lines = browser.run("return [...document.querySelectorAll('#log li')].map((line) => line.textContent)")
    assert lines == [f"#{n + 1}message {n} {SCRIPT}" for n in range(5)]
    assert browser.text("cursor") == "5"
    shoot(browser, pictures, "board")


def test_download_is_measured_and_right(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/download/")
    browser.click("start")
    browser.wait_text("state", "all 104857600 bytes are here", 60)
    assert browser.wait_text("verdict", "equal") == "equal"
    browser.wait_text("producers", "0")
    shoot(browser, pictures, "download")


def test_download_that_is_left_stops_its_producer(examples: M2GateRun, browser: Browser) -> None:
    browser.open(f"{examples.url}/download/")
    browser.run("const mb = document.getElementById('mb'); mb.value = 1024; mb.dispatchEvent(new Event('input'))")
    browser.click("start")
    browser.wait_text("state", "of 1024.0 MiB")
    browser.click("stop")
    browser.wait_text("state", "Stopped")
    # Whoever connects within a few ms of this reset may be sent the rest of the piece that Mongrel2 was writing:
    # docs/explanation/how-mongrel2-behaves.md. It is not what is tested here.
    time.sleep(0.5)

    def producers() -> int:
        return int(json.loads(get(examples, "/download/producers"))["producers"])

    wait_until(lambda: producers() == 0, "the producer has ended")


def test_counter_counts_live(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/counter/")
    browser.wait_text("state", "live")
    browser.click("add")
    browser.wait_text("total", "1")
    # The page's own snippet, run as it stands.
    snippet = browser.text("python")
    shown: list[object] = []
    exec(snippet, {"print": shown.append})  # noqa: S102
    assert shown == ['{"total":6}']
    browser.wait_text("total", "6")
    shoot(browser, pictures, "counter")


def test_guestbook_keeps_the_session(examples: M2GateRun, browser: Browser, pictures: Path) -> None:
    browser.open(f"{examples.url}/guestbook/")
    browser.fill("name", "Ann")
    browser.wait_text("note", "Welcome, Ann.")
    assert browser.driver.current_url == f"{examples.url}/guestbook/"
    browser.fill("text", SCRIPT)
    browser.wait_text("note", "Thank you")
    assert browser.text("entries").strip() == f"Ann{SCRIPT}"
    assert browser.driver.title != "1"
    shoot(browser, pictures, "guestbook")
    browser.click("leave")
    wait_until(lambda: browser.run("return !!document.getElementById('name')"), "signed out")


def test_pages_come_back_when_the_code_is_loaded_again(examples: M2GateRun, browser: Browser) -> None:
    browser.open(f"{examples.url}/chat/")
    chat = browser.window
    browser.fill("name", "Ann")
    browser.wait_text("log", "joined")
    board = browser.new_window(f"{examples.url}/board/")
    browser.wait_text("state", "a poll waits")
    clock = browser.new_window(f"{examples.url}/clock/")
    browser.wait_text("state", "connected")
    examples.process.send_signal(signal.SIGHUP)
    browser.wait_text("state", "lost")
    browser.wait_text("state", "connected")
    ticks = int(browser.text("ticks"))
    wait_until(lambda: int(browser.text("ticks")) > ticks, f"ticks after the {ticks} of before, in {clock}")
    browser.go_to(chat)
    wait_until(lambda: browser.text("log").count("Annjoined") == 2, "Ann is back")
    browser.fill("text", "still here")
    browser.wait_text("log", "still here")
    browser.go_to(board)
    browser.fill("text", "of the new life")
    # With one directly connected worker a request can get lost between the old one and the new one.
    # Its connection is closed after a second, which Chromium reports, and the page asks again.
    browser.wait_text("log", "of the new life", 45)
    said = browser.take_console()
    assert [one for one in said if "/chat/talk" not in one and "/board/messages" not in one] == []


@pytest.mark.parametrize("name", NAMES)
def test_page_of_a_single_file(name: str, browser: Browser) -> None:
    """Each example runs alone as well, at the root."""
    with m2gate_run(ROOT / "handlers" / f"{name}.py", "--drain-timeout", "1") as run:
        browser.open(f"{run.url}/")
        assert browser.run("return document.querySelector('h1') !== null")
        if name == "chat":
            browser.fill("name", "Ann")
            browser.wait_text("log", "joined")
        browser.keep_one_window()
