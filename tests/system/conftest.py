"""Fixtures of the tests with real programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.runs import write_app
from tests.system.served import SHAPES, use_shape
from tests.system.support import Mongrel2, mongrel2, short_directory


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses `running` in every shape: the same tests, the same results."""
    names = vars(metafunc.module)
    if "running" not in names and "site" not in names:
        return
    pinned = metafunc.definition.get_closest_marker("shape")
    shapes = pinned.args if pinned else tuple(SHAPES)
    is_core = metafunc.definition.get_closest_marker("core") is not None
    quick = {*shapes} if pinned else {"direct", "gateway-3"} if is_core else {"direct"}
    params = [pytest.param(one, marks=() if one in quick else pytest.mark.full) for one in shapes]
    metafunc.parametrize("shape", params, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def shape(request: pytest.FixtureRequest) -> str:
    """How `running` serves an application in this test: see served.SHAPES."""
    name: str = getattr(request, "param", "direct")
    use_shape(name)
    return name


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
