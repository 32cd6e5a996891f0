"""A headless Chromium for tests: windows, what they say on their console, and pictures of them."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.system.support import short_directory, wait_until

FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",  # pictures of whole pages need none
    "--window-size=1280,900",
)
SIZES: Final = {"wide": (1280, 900), "narrow": (360, 740)}


class Browser:
    """One Chromium. Elements are named by their id; what changes is waited for."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def new_window(self, url: str) -> str:
        """Open url in a window of its own and go there; return its handle."""
        self.driver.switch_to.new_window("window")
        self.open(url)
        return self.window

    @property
    def window(self) -> str:
        return self.driver.current_window_handle

    def go_to(self, window: str) -> None:
        self.driver.switch_to.window(window)

    def keep_one_window(self) -> None:
        """Close all windows but one, which is left blank."""
        first, *others = self.driver.window_handles
        for other in others:
            self.go_to(other)
            self.driver.close()
        self.go_to(first)
        self.open("about:blank")

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        """Return the element's text, "" while the page has no such element."""
        return str(self.run("return document.getElementById(arguments[0])?.textContent ?? ''", name))

    def wait_text(self, name: str, part: str, timeout_s: float = 15.0) -> str:
        """Wait until the element's text has part; return the text."""
        wait_until(lambda: part in self.text(name), f"{part!r} in #{name}", timeout_s, 0.05)
        return self.text(name)

    def click(self, name: str) -> None:
        self.find(name).click()

    def fill(self, name: str, text: str) -> None:
        """Type text into a field in place of what is there, and press Enter."""
        field = self.find(name)
        field.clear()
        field.send_keys(text + "\n")

    def choose(self, name: str, value: str) -> None:
        """Choose the entry of a list that has this value."""
        script = "const [name, value] = arguments, list = document.getElementById(name); list.value = value;"
        self.run(script + "list.dispatchEvent(new Event('change'))", name, value)

    def run(self, script: str, *args: Any) -> Any:
        """Run the body of a JavaScript function; return what it returns."""
        return self.driver.execute_script(script, *args)

    def take_console(self) -> list[str]:
        """Return, and forget, the warnings and errors of all windows: scripts, policies, network."""
        found = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [str(entry["message"]) for entry in found if entry["level"] in ("WARNING", "SEVERE")]

    def emulate(self, size: str, scheme: str) -> None:
        """Give the window the size of a screen, "wide" or "narrow", and a scheme, "light" or "dark"."""
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def picture(self, path: Path) -> None:
        """Write the whole page, as far as it goes down, to a PNG file."""
        answer = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(answer["data"]))


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium with a profile of its own, driven by its chromedriver."""
    with short_directory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        driver.set_page_load_timeout(30)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
