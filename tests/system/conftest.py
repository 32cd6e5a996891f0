"""Fixtures of the tests with real programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.runs import write_app
from tests.system.support import Mongrel2, mongrel2, short_directory


@pytest.fixture
def server() -> Iterator[Mongrel2]:
    """A Mongrel2 with m2gate's settings and one handler for everything, fresh for this test."""
    with mongrel2() as one:
        yield one


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary directory with a path short enough for sockets."""
    with short_directory() as folder:
        yield folder


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A file with an application that answers "one"."""
    return write_app(tmp_path / "app.py", "one")
