"""Loading with the real m2sh, and noticing when the database is not what was meant."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from m2gate.errors import ConfigError
from m2gate.site.load import LoadError, compare, load, write_configuration
from m2gate.site.private import PrivateServer

SERVER = PrivateServer(folder=Path("/run/m2gate/run-1"), port=6767, routes=("/", "@chat"), raw_payload=True)


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def test_what_is_loaded_is_what_was_meant(tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    for server in (SERVER, replace(SERVER, protocol="json", static={"/s/": public}, certdir=Path("/c"))):
        database = write_configuration(server.configuration(), tmp_path)
        assert database == tmp_path / "mongrel2.sqlite"
        assert (tmp_path / "mongrel2.conf").read_text().startswith("# Configuration of Mongrel2")


def test_mimetypes_replace_m2shs(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    server = replace(SERVER, static={"/s/": tmp_path / "public"})
    database = write_configuration(server.configuration(), tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("select mimetype from mimetype where extension = '.html'").fetchall()
        assert found == [("text/html; charset=utf-8",)]
        assert connection.execute("select mimetype from mimetype where extension = '.png'").fetchall()


DIFFERENCES = [
    pytest.param("update server set port = 1", "table server", id="port"),
    pytest.param("update server set use_ssl = 1", "table server", id="tls"),
    pytest.param("delete from host", "table host", id="host"),
    pytest.param("insert into host (name, matching) values ('b', 'b')", "table host", id="second-host"),
    pytest.param("update handler set recv_ident = 'm2gate'", "table handler route", id="recv-ident"),
    pytest.param("update handler set raw_payload = 0", "table handler route", id="raw-payload"),
    pytest.param("delete from route where path = '@chat'", "table handler route", id="route"),
    pytest.param("insert into route (path, target_type) values ('/x', 'proxy')", "table route", id="further-route"),
    pytest.param("update setting set value = '1' where key = 'upload.stream'", "but", id="same"),
    pytest.param("update setting set value = '0' where key = 'upload.stream'", "table setting", id="setting"),
    pytest.param("insert into setting (key, value) values ('upload.stream', '1')", "table setting", id="twice"),
    pytest.param("delete from mimetype", "table mimetype", id="mimetypes"),
    pytest.param("drop table route", "cannot be read back", id="no-table"),
]


@pytest.mark.parametrize(("statement", "problem"), DIFFERENCES)
def test_differences_are_found(tmp_path: Path, statement: str, problem: str) -> None:
    database = write_configuration(SERVER.configuration(), tmp_path)
    change(database, statement)
    if problem == "but":
        compare(SERVER.configuration(), database)
        return
    with pytest.raises(LoadError, match=problem):
        compare(SERVER.configuration(), database)


def test_m2shs_errors_are_noticed_although_it_exits_with_0(tmp_path: Path) -> None:
    text = tmp_path / "mongrel2.conf"
    text.write_text('servers = [Server(uuid="a",)]\n')
    with pytest.raises(LoadError, match="SYNTAX ERROR"):
        load(text, tmp_path / "m.sqlite")
    with pytest.raises(LoadError, match="cannot load it"):
        load(tmp_path / "nothing.conf", tmp_path / "m.sqlite")


def test_missing_m2sh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoadError, match="apt install mongrel2"):
        write_configuration(SERVER.configuration(), tmp_path)


def test_neighbours_that_mongrel2_would_serve_are_refused(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public-old").mkdir()
    server = replace(SERVER, static={"/s/": tmp_path / "public"})
    with pytest.raises(ConfigError, match="would serve public-old beside it"):
        write_configuration(server.configuration(), tmp_path)
    (tmp_path / "public-old").rename(tmp_path / "old-public")
    write_configuration(server.configuration(), tmp_path)
