"""Each test gets the example that its file is named after, freshly imported, behind a TestClient."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from m2gate import TestClient
from m2gate.app.user_code import import_file

HANDLERS = Path(__file__).parents[2] / "handlers"


@pytest.fixture
def example(request: pytest.FixtureRequest) -> ModuleType:
    """handlers/NAME.py for tests/handlers/test_NAME.py."""
    path = HANDLERS / request.path.name.removeprefix("test_")
    return import_file(path, str(path))


@pytest.fixture
def client(example: ModuleType) -> Iterator[TestClient]:
    with TestClient(example.app) as client:
        yield client
