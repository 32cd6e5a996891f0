"""TLS with several names on one port, as a browser or curl sees it."""

import os
import ssl
import subprocess
from pathlib import Path

import pytest

from m2gate.link.control import ControlPort
from m2gate.site.settings import CIPHERS
from tests.system.support import make_pair, mongrel2, peer_certificate


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


@pytest.mark.checklist("mongrel2", 64)
def test_each_name_shows_its_own_certificate(tmp_path: Path) -> None:
    first = make_pair(tmp_path, "a.test", ["a.test"])
    second = make_pair(tmp_path, "b.test", ["b.test"])
    wild = make_pair(tmp_path, "_.wild.test", ["*.wild.test"])
    with mongrel2(certificates=tmp_path) as server:
        default = der(server.folder / "certs" / "test-1.crt")
        assert peer_certificate(server.port, "a.test") == der(first)
        assert peer_certificate(server.port, "A.test") == der(first)
        assert peer_certificate(server.port, "b.test") == der(second)
        assert peer_certificate(server.port, "x.wild.test") == der(wild)
        assert peer_certificate(server.port, "wild.test") == default
        assert peer_certificate(server.port, "unknown.test") == default
        assert peer_certificate(server.port, None) == default


@pytest.mark.checklist("mongrel2", 64)
def test_replaced_pair_is_served_after_reload(tmp_path: Path) -> None:
    old = der(make_pair(tmp_path, "a.test", ["a.test"]))
    with mongrel2(certificates=tmp_path) as server:
        assert peer_certificate(server.port, "a.test") == old
        (tmp_path / "new").mkdir()
        new = der(make_pair(tmp_path / "new", "a.test", ["a.test"]))
        for suffix in ("key", "crt"):
            os.replace(tmp_path / "new" / f"a.test.{suffix}", tmp_path / f"a.test.{suffix}")
        assert peer_certificate(server.port, "a.test") == old
        ControlPort(server.control_spec).reload()
        assert peer_certificate(server.port, "a.test") == new


def s_client(port: int, *options: str) -> str:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "a.test", *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


@pytest.mark.checklist("mongrel2", 63)
def test_only_authenticated_ciphers(tmp_path: Path) -> None:
    make_pair(tmp_path, "a.test", ["a.test"])
    with mongrel2(certificates=tmp_path) as server:
        assert "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384" in s_client(server.port)
        assert "Cipher is (NONE)" in s_client(server.port, "-cipher", "ECDHE-ECDSA-AES256-SHA384:@SECLEVEL=0")
        for version in ("-tls1", "-tls1_1"):
            assert "Cipher is (NONE)" in s_client(server.port, version, "-cipher", "ALL:@SECLEVEL=0")
        for name in CIPHERS:
            if "ECDSA" in name:
                openssl_name = _openssl_name(name)
                assert f"Cipher is {openssl_name}" in s_client(server.port, "-tls1_2", "-cipher", openssl_name)


def test_rsa_pairs_work_too(tmp_path: Path) -> None:
    make_pair(tmp_path, "a.test", ["a.test"], key="rsa")
    with mongrel2(certificates=tmp_path) as server:
        for name in CIPHERS:
            if "RSA" in name:
                openssl_name = _openssl_name(name)
                assert f"Cipher is {openssl_name}" in s_client(server.port, "-tls1_2", "-cipher", openssl_name)


def _openssl_name(name: str) -> str:
    short = name.removeprefix("TLS-").replace("-WITH", "").replace("AES-", "AES")
    return short.removesuffix("-SHA256") if "CHACHA20" in short else short
