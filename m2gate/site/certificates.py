"""Certificates of a TLS server: check the user's pairs, and lay out the folder Mongrel2 reads.

Mongrel2 says nothing about a pair it cannot use: it shows its default pair instead. So everything
that could go wrong is checked here.
"""

import logging
import os
import re
import ssl
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from m2gate.errors import ConfigError

logger = logging.getLogger(__name__)

OPENSSL_TIMEOUT_S: Final = 30.0
DEFAULT_DAYS: Final = 3650
DEFAULT_NAME: Final = "default.invalid"

# Lower case, because Mongrel2 looks for the lower-cased name; "_" stands for the star of a wildcard.
_STEM: Final = re.compile(r"(_\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_USABLE_KEYS: Final = ("rsaEncryption", "id-ecPublicKey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key for one name.

    stem: file name without suffix: the host name, or ``_.example.test`` for ``*.example.test``.
    """

    stem: str
    certificate: Path
    key: Path
    is_expired: bool

    @property
    def name(self) -> str:
        """The host name, with a star if it is a wildcard."""
        return f"*{self.stem[1:]}" if self.stem.startswith("_.") else self.stem


def prepare_certdir(folder: Path, certdir: Path, uuid: str, source: str = "--tls-certs") -> Path:
    """Make the certdir of a server: links to the user's pairs, and a self-signed default pair.

    folder:  the user's, with NAME.crt and NAME.key for each name.
    certdir: new; ``certdir/uuid.crt`` is what clients get that send no name or an unknown one. It is
             generated, because Mongrel2 never reads this pair again while it does so with the others.
    Returns certdir. Raises ConfigError for pairs that Mongrel2 could not use.
    """
    pairs = _read_pairs_of(uuid, folder, source)
    certdir.mkdir(mode=0o700)
    for pair in pairs:
        _link(pair, certdir)
    make_self_signed(certdir / uuid, DEFAULT_NAME, source)
    return certdir


def refresh_certdir(folder: Path, certdir: Path, uuid: str, source: str = "--tls-certs") -> None:
    """Bring a certdir up to date with the user's folder: names that are new, names that are gone.

    Mongrel2 looks at the files again after its SIGHUP. Raises ConfigError, with nothing changed, for
    pairs that it could not use.
    """
    pairs = _read_pairs_of(uuid, folder, source)
    for link in certdir.iterdir():
        if link.is_symlink():
            link.unlink()
    for pair in pairs:
        _link(pair, certdir)


def _read_pairs_of(uuid: str, folder: Path, source: str) -> list[Pair]:
    pairs = read_pairs(folder, source)
    if any(pair.stem == uuid for pair in pairs):
        raise ConfigError(source, str(folder), f"{uuid} is the name of the server itself", "rename the pair", source)
    return pairs


def _link(pair: Pair, certdir: Path) -> None:
    if pair.is_expired:
        logger.warning("certificate has expired name=%s file=%s", pair.name, pair.certificate)
    (certdir / f"{pair.stem}.crt").symlink_to(pair.certificate)
    (certdir / f"{pair.stem}.key").symlink_to(pair.key)


def read_pairs(folder: Path, source: str = "--tls-certs") -> list[Pair]:
    """Return the pairs of a folder in the order of their names.

    Raises ConfigError naming the file: a half pair, key and certificate that do not belong together,
    a passphrase, a name or a kind of key that Mongrel2 cannot use, a file that cannot be read, none at all.
    """
    folder = Path(os.path.abspath(folder))
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        problem = f"this folder cannot be read: {error.strerror}"
        raise ConfigError(source, str(folder), problem, "name a folder with NAME.crt and NAME.key", source) from error
    certificates = {name[:-4] for name in names if name.endswith(".crt")}
    keys = {name[:-4] for name in names if name.endswith(".key")}
    for stem in sorted(certificates ^ keys):
        there, missing = (".crt", ".key") if stem in certificates else (".key", ".crt")
        problem = f"its {missing} is missing"
        raise ConfigError(source, str(folder / f"{stem}{there}"), problem, f"add {stem}{missing}", source)
    if not certificates:
        problem = "no certificate is in this folder"
        raise ConfigError(source, str(folder), problem, "add NAME.crt and NAME.key for each host name", source)
    return [read_pair(folder, stem, source) for stem in sorted(certificates)]


def find_stem(host: str, stems: Collection[str]) -> str | None:
    """Return which pair Mongrel2 shows for a host, or None if that is the default pair.

    host:  lower case; ``*.example.test`` stands for any name one label below.
    stems: of the pairs that there are.
    """
    first, _, rest = host.partition(".")
    candidates = [] if first == "*" else [host]
    candidates += [f"_.{rest}"] if rest else []
    return next((stem for stem in candidates if stem in stems), None)


def read_pair(folder: Path, stem: str, source: str) -> Pair:
    """Return the pair ``stem.crt`` and ``stem.key`` of a folder.

    Raises ConfigError naming the file if Mongrel2 could not use it.
    """
    certificate, key = folder / f"{stem}.crt", folder / f"{stem}.key"
    if not _STEM.fullmatch(stem):
        problem = "the file is not named after a host, in lower case"
        remedy = "e.g. shop.example.crt, or _.shop.example.crt for *.shop.example"
        raise ConfigError(source, str(certificate), problem, remedy, source)
    for file in (certificate, key):
        try:
            file.read_bytes()
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
            raise ConfigError(source, str(file), problem, "let this user read it", source) from error
    _check_match(certificate, key, source)
    described = run_openssl(["x509", "-in", str(certificate), "-noout", "-text", "-checkend", "0"], source)
    if not any(kind in described.stdout for kind in _USABLE_KEYS):
        problem = "Mongrel2 knows RSA and EC keys only"
        raise ConfigError(source, str(certificate), problem, "get a certificate for such a key", source)
    return Pair(stem=stem, certificate=certificate, key=key, is_expired=described.returncode != 0)


def _check_match(certificate: Path, key: Path, source: str) -> None:
    asked: list[str] = []

    def refuse_passphrase() -> str:
        asked.append("passphrase")
        return ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, refuse_passphrase)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            problem, remedy = "it is locked with a passphrase", f"unlock it: openssl pkey -in {key.name} -out FILE"
            raise ConfigError(source, str(key), problem, remedy, source) from error
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            problem, remedy = "this key belongs to another certificate", "put the right .crt and .key side by side"
            raise ConfigError(source, str(key), problem, remedy, source) from error
        problem, remedy = "not a pair of PEM files", "certificate first, then its intermediates; the key beside it"
        raise ConfigError(source, str(certificate), problem, remedy, source) from error


def make_self_signed(stem: Path, name: str, source: str) -> None:
    """Write a self-signed EC pair ``stem.crt`` and ``stem.key`` (0600) for a name.

    Raises ConfigError if openssl is missing or fails.
    """
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", f"{stem}.key", "-out", f"{stem}.crt", "-days", str(DEFAULT_DAYS), "-subj", f"/CN={name}"]
    done = run_openssl(command, source)
    if done.returncode != 0:
        raise ConfigError(source, name, f"openssl failed: {done.stderr.strip()}", "repair openssl", source)
    Path(f"{stem}.key").chmod(0o600)


def make_default_pairs(certs: Path, server_ids: Iterable[str], source: str) -> list[str]:
    """Make the default pair of each server that has none or half of one; return the ids of those.

    The name in it, default.invalid, belongs to nobody: Mongrel2 reads this pair when it starts and never
    again, so a real name must have a pair of its own. Both files are readable for the folder's group.
    Raises ConfigError if openssl or the folder fails.
    """
    made = []
    for server_id in server_ids:
        if all((certs / f"{server_id}.{suffix}").exists() for suffix in ("crt", "key")):
            continue
        new = certs / f".{server_id}.new"
        try:
            make_self_signed(new, DEFAULT_NAME, source)
            for suffix in ("key", "crt"):
                file = Path(f"{new}.{suffix}")
                file.chmod(0o640)
                file.replace(certs / f"{server_id}.{suffix}")
        except OSError as error:
            problem = f"the default pair of {server_id} cannot be written: {error.strerror}"
            raise ConfigError(source, str(certs), problem, "run this as root", source) from error
        made.append(server_id)
    return made


def run_openssl(args: list[str], source: str) -> "subprocess.CompletedProcess[str]":
    """Run openssl and return how it ended. Raises ConfigError if it is not installed."""
    try:
        return subprocess.run(
            ["openssl", *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=OPENSSL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ConfigError(source, "openssl", "no such program", "install it: apt install openssl", source) from error
