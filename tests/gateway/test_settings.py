"""The settings of a gateway: what a file may say, and how a mistake in it is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from m2gate.errors import ConfigError
from m2gate.gateway.place import FOLDER_MAX
from m2gate.gateway.settings import SERVERS_MAX, GatewaySettings
from m2gate.link.sockets import DirectServer

SERVER = {"send_spec": "ipc:///a/requests", "recv_spec": "ipc:///a/replies", "send_ident": "shop"}
TOML = """\
# a comment: publish_htp = 1
metrics = "127.0.0.1:9090"
queue_max = 5

[[servers]]
send_ident = "shop"
send_spec = "ipc:///a/requests"
recv_spec = "ipc:///a/replies"
"""


def read_json(place: Path, **changes: Any) -> GatewaySettings:
    path = place / "gateway.json"
    path.write_text(json.dumps({"folder": "/run/x", "servers": [SERVER], **changes}))
    return GatewaySettings.read_json(path)


def read_toml(folder: Path, text: str) -> GatewaySettings:
    path = folder / "gateway.toml"
    path.write_text(text)
    return GatewaySettings.read_toml(path)


def test_json(tmp_path: Path) -> None:
    found = read_json(tmp_path, ready_fd=5, publish_http="127.0.0.1:5561", publish_pull=None, keepalive_s=10)
    assert found == GatewaySettings(
        folder="/run/x",
        servers=(DirectServer(send_spec="ipc:///a/requests", recv_spec="ipc:///a/replies", send_ident="shop"),),
        ready_fd=5,
        publish_http="127.0.0.1:5561",
        keepalive_s=10,
    )


def test_toml_has_a_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2GATE_ROOT", "/srv/root")
    found = read_toml(tmp_path, TOML)
    assert found.folder == "/srv/root/run/m2gate/gateway"
    assert found.metrics == "127.0.0.1:9090"
    assert found.servers[0].control_spec is None
    monkeypatch.delenv("M2GATE_ROOT")
    assert read_toml(tmp_path, TOML).folder == "/run/m2gate/gateway"
    assert read_toml(tmp_path, f'folder = "/a"\n{TOML}').folder == "/a"


WRONG = [
    pytest.param(
        "publish_htp = 1\n" + TOML, "gateway.toml:1: publish_htp = 1: no such key; did you mean publish_http?"
    ),
    pytest.param(TOML.replace("queue_max", "zzz"), "gateway.toml:3: zzz = 5: no such key; known are folder, servers"),
    pytest.param(TOML + 'send_idet = "x"\n', "gateway.toml:9: send_idet = 'x': no such key; did you mean send_ident?"),
    pytest.param(TOML.replace("5", "-1", 1), "gateway.toml:3: queue_max = -1: out of bounds"),
    pytest.param(TOML.replace("5", '"many"', 1), "gateway.toml:3: queue_max = 'many': out of bounds"),
    pytest.param(TOML.replace("5", "true", 1), "gateway.toml:3: queue_max = True: out of bounds"),
    pytest.param(TOML.replace("127.0.0.1:9090", "here:1"), "gateway.toml:2: metrics = 'here:1': 'here' is no IP"),
    pytest.param(TOML.replace('"127.0.0.1:9090"', "9090"), "gateway.toml:2: metrics = 9090: no address"),
    pytest.param(TOML.replace("ipc:///a/req", "a/req"), "gateway.toml:7: send_spec = 'a/requests': no ZeroMQ address"),
    pytest.param(TOML.replace('"shop"', '"shop 1"'), "gateway.toml:6: send_ident = 'shop 1': "),
    pytest.param(TOML + TOML.partition("\n\n")[2], "send_ident = 'shop': two servers have this name"),
    pytest.param(TOML.replace("send_spec", "upload_store"), "send_spec is missing"),
    pytest.param("queue_max = 5", "servers = None: a gateway has 1 to 64 servers; add [[servers]]"),
    pytest.param("servers = [1]", "gateway.toml:1: servers = 1: a server is a table"),
    pytest.param("folder = 'a'\n" + TOML, "gateway.toml:1: folder = 'a': the folder is an absolute path"),
    pytest.param("access_log = 'a'\n" + TOML, "gateway.toml:1: access_log = 'a': neither - nor an absolute path"),
    pytest.param("publish_pull = 'a'\n" + TOML, "gateway.toml:1: publish_pull = 'a': no ZeroMQ address"),
    pytest.param("queue_max = \n", "is no TOML: Invalid value (at line 1, column 13); correct it"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory; name a file that exists"):
        GatewaySettings.read_toml(tmp_path / "none.toml")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no TOML"):
        GatewaySettings.read_toml(tmp_path / "bytes")
    with pytest.raises(ConfigError, match="cannot be read"):
        GatewaySettings.read_json(tmp_path / "bytes")
    (tmp_path / "list").write_text("[]")
    with pytest.raises(ConfigError, match="must be an object"):
        GatewaySettings.read_json(tmp_path / "list")


def test_bounds(tmp_path: Path) -> None:
    servers = [{**SERVER, "send_ident": f"s{number}"} for number in range(SERVERS_MAX)]
    assert len(read_json(tmp_path, servers=servers, folder="/" + (FOLDER_MAX - 1) * "x").servers) == SERVERS_MAX
    with pytest.raises(ConfigError, match="1 to 64 servers"):
        read_json(tmp_path, servers=[*servers, {**SERVER, "send_ident": "more"}])
    with pytest.raises(ConfigError, match="at most 90 bytes"):
        read_json(tmp_path, folder="/" + FOLDER_MAX * "x")
