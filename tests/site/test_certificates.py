"""Pairs of certificate and key: what is laid out for Mongrel2, and what is refused."""

import logging
import subprocess
from pathlib import Path

import pytest

from m2gate.errors import ConfigError
from m2gate.site.certificates import find_stem, make_default_pairs, prepare_certdir, read_pairs, refresh_certdir
from tests.system.support import make_pair


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    folder.mkdir()
    return folder


def refusal(folder: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_pairs(folder)
    assert caught.value.key == "--tls-certs"
    return caught.value


def test_pairs_and_their_names(certs: Path) -> None:
    make_pair(certs, "_.b.test", ["*.b.test"])
    make_pair(certs, "a.test", ["a.test"], key="rsa")
    (certs / "README").touch()
    pairs = read_pairs(certs)
    assert [pair.name for pair in pairs] == ["*.b.test", "a.test"]
    assert not any(pair.is_expired for pair in pairs)


def test_certdir_links_the_pairs_and_has_a_default(certs: Path, tmp_path: Path) -> None:
    certificate = make_pair(certs, "a.test", ["a.test"])
    certdir = prepare_certdir(certs, tmp_path / "run", "app-1")
    assert sorted(one.name for one in certdir.iterdir()) == ["a.test.crt", "a.test.key", "app-1.crt", "app-1.key"]
    assert (certdir / "a.test.crt").readlink() == certificate
    assert (certdir / "app-1.key").stat().st_mode & 0o777 == 0o600
    assert certdir.stat().st_mode & 0o777 == 0o700
    assert b"CERTIFICATE" in (certdir / "app-1.crt").read_bytes()


def test_refreshed_certdir_follows_the_folder(certs: Path, tmp_path: Path) -> None:
    make_pair(certs, "a.test", ["a.test"])
    certdir = prepare_certdir(certs, tmp_path / "run", "app-1")
    default = (certdir / "app-1.crt").read_bytes()
    make_pair(certs, "b.test", ["b.test"])
    for suffix in ("crt", "key"):
        (certs / f"a.test.{suffix}").unlink()
    refresh_certdir(certs, certdir, "app-1")
    assert sorted(one.name for one in certdir.iterdir()) == ["app-1.crt", "app-1.key", "b.test.crt", "b.test.key"]
    assert (certdir / "app-1.crt").read_bytes() == default
    (certs / "b.test.key").rename(certs / "c.test.key")
    with pytest.raises(ConfigError, match="is missing"):
        refresh_certdir(certs, certdir, "app-1")
    assert (certdir / "b.test.key").is_symlink()


def test_a_relative_folder_is_linked_absolutely(certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(certs, "a.test", ["a.test"])
    monkeypatch.chdir(tmp_path)
    certdir = prepare_certdir(Path("certs"), tmp_path / "run", "app-1")
    assert (certdir / "a.test.key").read_bytes() == (certs / "a.test.key").read_bytes()


def test_expired_is_a_warning(certs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate = make_pair(certs, "old.test", ["old.test"])
    key = certificate.with_suffix(".key")
    command = [
        "openssl",
        "x509",
        "-in",
        str(certificate),
        "-signkey",
        str(key),
        "-days",
        "-1",
        "-out",
        str(certificate),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    with caplog.at_level(logging.WARNING):
        prepare_certdir(certs, tmp_path / "run", "app-1")
    assert "certificate has expired name=old.test" in caplog.text


def test_half_pairs(certs: Path) -> None:
    make_pair(certs, "a.test", ["a.test"])
    (certs / "a.test.key").rename(certs / "b.test.key")
    assert "its .key is missing" in refusal(certs).problem
    (certs / "a.test.crt").unlink()
    error = refusal(certs)
    assert error.value == str(certs / "b.test.key")
    assert "its .crt is missing" in error.problem


def test_key_of_another_certificate(certs: Path) -> None:
    make_pair(certs, "a.test", ["a.test"])
    make_pair(certs, "b.test", ["b.test"])
    (certs / "b.test.key").write_bytes((certs / "a.test.key").read_bytes())
    error = refusal(certs)
    assert error.value == str(certs / "b.test.key")
    assert "belongs to another certificate" in error.problem


def test_passphrase(certs: Path) -> None:
    make_pair(certs, "a.test", ["a.test"])
    key = certs / "a.test.key"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(certs / "locked")]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    (certs / "locked").replace(key)
    assert "passphrase" in refusal(certs).problem


def test_broken_files(certs: Path) -> None:
    certificate = make_pair(certs, "a.test", ["a.test"])
    good = certificate.read_text()
    certificate.write_text("nonsense")
    assert "not a pair of PEM files" in refusal(certs).problem
    certificate.write_text(good.replace("\n", "\n!", 3))
    assert "not a pair of PEM files" in refusal(certs).problem


def test_kind_of_key_that_mongrel2_does_not_know(certs: Path) -> None:
    make_pair(certs, "a.test", ["a.test"], key="ed25519")
    assert "RSA and EC keys only" in refusal(certs).problem


@pytest.mark.parametrize("stem", ["A.test", "*.test", "a b", "_test", ".a", "-a", "a..", "ä.test"])
def test_names_that_are_never_looked_up(certs: Path, stem: str) -> None:
    make_pair(certs, stem, ["a.test"])
    assert "not named after a host" in refusal(certs).problem


def test_empty_missing_and_unreadable_folders(certs: Path) -> None:
    assert "no certificate is in this folder" in refusal(certs).problem
    assert "cannot be read" in refusal(certs / "nothing").problem
    (certs / "a.test.crt").mkdir()
    (certs / "a.test.key").touch()
    assert "cannot be read: Is a directory" in refusal(certs).problem


def test_name_of_the_server_itself(certs: Path, tmp_path: Path) -> None:
    make_pair(certs, "app-1", ["app-1"])
    with pytest.raises(ConfigError, match="rename the pair"):
        prepare_certdir(certs, tmp_path / "run", "app-1")


def test_missing_openssl(certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pair(certs, "a.test", ["a.test"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt install openssl"):
        prepare_certdir(certs, tmp_path / "run", "app-1")


@pytest.mark.parametrize(
    ("host", "stem"),
    [
        ("a.test", "a.test"),
        ("b.test", None),
        ("x.b.test", "_.b.test"),
        ("y.x.b.test", None),
        ("exact.b.test", "exact.b.test"),
        ("*.b.test", "_.b.test"),
        ("*.c.test", None),
        ("localhost", None),
    ],
)
def test_pair_of_a_host(host: str, stem: str | None) -> None:
    assert find_stem(host, {"a.test", "_.b.test", "exact.b.test", "_."}) == stem


def test_default_pairs_are_made_where_they_are_missing(certs: Path) -> None:
    certs.chmod(0o2750)
    assert make_default_pairs(certs, ["any-443", "local-8443"], "config apply") == ["any-443", "local-8443"]
    before = (certs / "any-443.crt").read_bytes()
    (certs / "local-8443.key").unlink()
    assert make_default_pairs(certs, ["any-443", "local-8443"], "config apply") == ["local-8443"]
    assert (certs / "any-443.crt").read_bytes() == before
    assert {file.name: file.stat().st_mode & 0o777 for file in certs.iterdir()} == dict.fromkeys(
        ["any-443.crt", "any-443.key", "local-8443.crt", "local-8443.key"], 0o640
    )
    assert [pair.name for pair in read_pairs(certs)] == ["any-443", "local-8443"]


def test_default_pairs_in_a_folder_that_is_not_there(certs: Path) -> None:
    with pytest.raises(ConfigError, match="openssl failed"):
        make_default_pairs(certs / "missing", ["any-443"], "config apply")
