"""Where workers find their gateway."""

from pathlib import Path

import pytest

from m2gate.cli.attach import parse_attach
from m2gate.errors import ConfigError


def test_the_default_is_below_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2GATE_ROOT", "/srv/test")
    assert parse_attach([]) == parse_attach(["gateway"]) == parse_attach(["gateway:"]) == "/srv/test/run/m2gate/gateway"
    monkeypatch.delenv("M2GATE_ROOT")
    assert parse_attach([]) == "/run/m2gate/gateway"


def test_a_socket_or_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for spec in (f"gateway:{tmp_path}/workers", f"gateway:{tmp_path}", "gateway:workers", "gateway:."):
        assert parse_attach([spec]) == str(tmp_path)
    (tmp_path / "workers").mkdir()
    assert parse_attach(["gateway:workers"]) == str(tmp_path / "workers")


WRONG = [
    pytest.param(["direct:shop"], "direct: is not there yet in this version; use gateway:SOCKET, or m2gate run"),
    pytest.param(["zhttp:ipc:///x"], "zhttp: is not there yet"),
    pytest.param(["/run/m2gate/gateway"], "no such kind; write gateway:SOCKET"),
    pytest.param(["gateway:/a", "gateway:/b"], "a worker is attached to one gateway"),
    pytest.param(["gateway:/etc/passwd"], "this is no folder of a gateway"),
    pytest.param(["gateway:/" + "x" * 90], "more than 90 bytes"),
]


@pytest.mark.parametrize(("specs", "said"), WRONG)
def test_what_cannot_be(specs: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_attach(specs)
    assert str(caught.value).startswith("--attach = ")
    assert said in str(caught.value)
