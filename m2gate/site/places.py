"""Where the files of an installation lie: sites, certificates, the database, sockets, logs.

``M2GATE_ROOT=DIR`` in the environment puts all of them below DIR, for tests and for people without root.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Places:
    """The places below ``root``, which is ``/`` where nobody says otherwise."""

    root: Path

    @classmethod
    def here(cls) -> "Places":
        """Return the places that the environment names."""
        return cls(Path(os.path.abspath(os.environ.get("M2GATE_ROOT") or "/")))

    @property
    def etc(self) -> Path:
        """The administrator's files."""
        return self.root / "etc/m2gate"

    @property
    def settings(self) -> Path:
        """Settings of the whole installation (TOML)."""
        return self.etc / "m2gate.toml"

    @property
    def fragments(self) -> Path:
        """Templates of Mongrel2's settings that the administrator may edit, add and delete."""
        return self.etc / "mongrel2.conf.d"

    @property
    def available(self) -> Path:
        """All sites, one NAME.toml each."""
        return self.etc / "sites-available"

    @property
    def enabled(self) -> Path:
        """Relative links to those that are served."""
        return self.etc / "sites-enabled"

    @property
    def certs(self) -> Path:
        """Certificates and keys, NAME.crt and NAME.key; Mongrel2's certdir."""
        return self.etc / "certs"

    @property
    def state(self) -> Path:
        """What m2gate has generated."""
        return self.root / "var/lib/m2gate"

    @property
    def database(self) -> Path:
        """Mongrel2's configuration, all servers."""
        return self.state / "config.sqlite"

    @property
    def applied(self) -> Path:
        """What the last ``m2gate config apply`` has done, besides the database."""
        return self.state / "applied.json"

    @property
    def acme(self) -> Path:
        """Where certbot puts its challenges (``--webroot``)."""
        return self.state / "acme"

    @property
    def run(self) -> Path:
        """Sockets and pid files."""
        return self.root / "run/m2gate"

    @property
    def handlers(self) -> Path:
        """Sockets between Mongrel2 and the gateway, ID.req and ID.rep."""
        return self.run / "handlers"

    @property
    def control(self) -> Path:
        """Control ports and pid files, ID.control and ID.pid; nobody but Mongrel2's user may enter."""
        return self.run / "control"

    @property
    def logs(self) -> Path:
        """Mongrel2's logs."""
        return self.root / "var/log/m2gate"
