"""What lies in the folder of certificates: each pair, how it is, and which site shows it."""

import grp
import pwd
import re
import ssl
import stat
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from m2gate.errors import ConfigError
from m2gate.site.certificates import DEFAULT_NAME, find_stem, read_pair, run_openssl
from m2gate.site.model import Site

SOURCE: Final = "certificates"
DAY_S: Final = 86_400

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_NAMES: Final = re.compile(r"DNS:([^,\s]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What the first certificate of a file says of itself.

    names:               lower case; those of the subject count only where there is no other.
    begins_s, expires_s: Unix times.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins_s: float
    expires_s: float

    def covers(self, name: str) -> bool:
        """Tell whether a client that asks for the name, or for ``*.example.test``, accepts this certificate."""
        first, _, rest = name.partition(".")
        return name in self.names or (first != "*" and f"*.{rest}" in self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPair:
    """One pair, or what there is of it.

    leaf:       None if nothing could be read of it.
    chain:      ``complete``, ``self-signed``, or what is wrong with it; ``unknown`` on a machine without a list
                of authorities.
    problem:    why Mongrel2 cannot use it, ``""`` if it can.
    is_default: for clients that send no name or an unknown one.
    sites:      names of the enabled sites that show it.
    """

    stem: str
    certificate: Path
    key: Path
    leaf: Leaf | None = None
    chain: str = ""
    problem: str = ""
    is_default: bool = False
    sites: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The host name, with a star if it is a wildcard."""
        return f"*{self.stem[1:]}" if self.stem.startswith("_.") else self.stem

    @property
    def key_mode(self) -> str:
        """Mode, owner and group of the key, as in ``0640 root:m2gate-www``; ``""`` if there is none."""
        return describe_mode(self.key)

    def days_left(self, now_s: float | None = None) -> int | None:
        """Return the whole days until it expires, negative afterwards; None if that is not known."""
        if self.leaf is None:
            return None
        return int((self.leaf.expires_s - (time.time() if now_s is None else now_s)) // DAY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingPair:
    """A host of a TLS site that has no certificate, so that clients get the default pair."""

    host: str
    site: str


def list_pairs(certs: Path, sites: Sequence[Site]) -> list[ListedPair]:
    """Return what the folder has, in the order of the names; a broken pair says in ``problem`` how it is broken.

    sites: the enabled ones.
    Raises ConfigError if openssl or the folder is missing.
    """
    stems = find_stems(certs)
    users = _users(sites, stems)
    defaults = {listen.server_id for site in sites for listen in site.listen if listen.tls}
    return [_list_pair(certs, stem, is_default=stem in defaults, sites=users.get(stem, ())) for stem in sorted(stems)]


def list_missing(certs: Path, sites: Iterable[Site]) -> list[MissingPair]:
    """Return the hosts of TLS sites for which there is no pair. Raises ConfigError if the folder is missing."""
    stems = find_stems(certs)
    hosts = [(host, site.name) for site in sites if _has_tls(site) for host in site.hosts]
    return [MissingPair(host=host, site=site) for host, site in hosts if find_stem(host, stems) is None]


def describe_mode(file: Path) -> str:
    """Return mode, owner and group as in ``0640 root:m2gate-www``; ``""`` if the file cannot be looked at."""
    try:
        status = file.stat()
    except OSError:
        return ""
    owner, group = str(status.st_uid), str(status.st_gid)
    with suppress(KeyError):
        owner = pwd.getpwuid(status.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    return f"{stat.S_IMODE(status.st_mode):04o} {owner}:{group}"


def _has_tls(site: Site) -> bool:
    return any(listen.tls for listen in site.listen)


def find_stems(certs: Path) -> set[str]:
    """Return the names of the files in the folder without .crt and .key. Raises ConfigError if it is missing."""
    try:
        names = [entry.name for entry in certs.iterdir()]
    except OSError as error:
        remedy = f"make it: install -d -g m2gate-www -m 2750 {certs}"
        raise ConfigError(SOURCE, str(certs), f"cannot be read: {error.strerror}", remedy, SOURCE) from error
    return {name[:-4] for name in names if name.endswith((".crt", ".key")) and not name.startswith(".")}


def _users(sites: Iterable[Site], stems: Collection[str]) -> dict[str, tuple[str, ...]]:
    users: dict[str, tuple[str, ...]] = {}
    for site in sites:
        found = [find_stem(host, stems) for host in site.hosts] if _has_tls(site) else []
        for stem in dict.fromkeys(found):
            if stem is not None:
                users[stem] = (*users.get(stem, ()), site.name)
    return users


def _list_pair(certs: Path, stem: str, *, is_default: bool, sites: tuple[str, ...]) -> ListedPair:
    certificate, key = certs / f"{stem}.crt", certs / f"{stem}.key"
    problem = ""
    leaf = None
    chain = ""
    if not certificate.exists() or not key.exists():
        problem = f"its {'.key' if certificate.exists() else '.crt'} is missing"
    else:
        try:
            read_pair(certs, stem, SOURCE)
        except ConfigError as error:
            if error.key == "openssl":
                raise
            problem = error.problem
    if certificate.exists():
        leaf = read_leaf(certificate)
        chain = check_chain(certificate) if leaf else ""
    return ListedPair(
        stem=stem,
        certificate=certificate,
        key=key,
        leaf=leaf,
        chain=chain,
        problem=problem,
        is_default=is_default or (leaf is not None and leaf.names == (DEFAULT_NAME,)),
        sites=sites,
    )


def read_leaf(certificate: Path) -> Leaf | None:
    """Return what the first certificate of a file says, None if it is no certificate."""
    options = ["-subject", "-issuer", "-dates", "-ext", "subjectAltName", "-nameopt", "RFC2253"]
    done = run_openssl(["x509", "-in", str(certificate), "-noout", *options], SOURCE)
    said = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line and not line.startswith(" "))
    if done.returncode != 0 or "notAfter" not in said:
        return None
    subject = said.get("subject", "").strip()
    names = _NAMES.findall(done.stdout) or re.findall(r"(?:^|,)CN=([^,]+)", subject)
    return Leaf(
        subject=subject,
        issuer=said.get("issuer", "").strip(),
        names=tuple(name.lower() for name in names),
        begins_s=ssl.cert_time_to_seconds(said["notBefore"]),
        expires_s=ssl.cert_time_to_seconds(said["notAfter"]),
    )


def check_chain(certificate: Path) -> str:
    """Return ``complete``, ``self-signed``, ``unknown``, or what a client that trusts this machine's list misses.

    Dates play no part in it.
    """
    blocks = _PEM.findall(certificate.read_text(errors="replace"))
    described = run_openssl(["x509", "-in", str(certificate), "-noout", "-subject_hash", "-issuer_hash"], SOURCE)
    if len(set(described.stdout.split())) == 1 and len(blocks) == 1:
        return "self-signed"
    if not _has_authorities():
        return "unknown"
    command = ["verify", "-no_check_time", "-untrusted", str(certificate), str(certificate)]
    done = run_openssl(command, SOURCE)
    if done.returncode == 0:
        return "complete"
    missing = "an intermediate certificate is missing" if len(blocks) == 1 else "its authority is not known here"
    reason = re.search(r"error \d+ at \d+ depth lookup: (.+)", done.stdout + done.stderr)
    if reason and "issuer certificate" not in reason[1]:
        return reason[1].strip()
    return missing


def _has_authorities() -> bool:
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile) or (bool(paths.capath) and any(Path(paths.capath).iterdir()))
