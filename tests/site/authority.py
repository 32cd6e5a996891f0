"""Certificates that an authority has signed, for tests of chains and dates."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Authority:
    """A root, an intermediate below it, and what that signs; all lies in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root.crt"
        self.intermediate = folder / "intermediate.crt"
        common = ["-x509", "-days", "30", "-subj", "/CN=Test Root"]
        _openssl(["req", *common, *self._new_key("root"), "-out", str(self.root)])
        self._sign("intermediate", "/CN=Test Intermediate", "root", "basicConstraints=critical,CA:TRUE")

    def issue(self, folder: Path, stem: str, names: Sequence[str], *, days: int = 90, with_chain: bool = True) -> Path:
        """Write ``stem.crt`` and ``stem.key`` (0640) into folder; return the .crt."""
        extension = "subjectAltName=" + ",".join(f"DNS:{name}" for name in names)
        self._sign("leaf", f"/CN={names[0]}", "intermediate", extension, days=days)
        chain = [self.folder / "leaf.crt", *([self.intermediate] if with_chain else [])]
        certificate = folder / f"{stem}.crt"
        certificate.write_text("".join(one.read_text() for one in chain))
        key = folder / f"{stem}.key"
        key.write_text((self.folder / "leaf.key").read_text())
        key.chmod(0o640)
        return certificate

    def _new_key(self, name: str) -> list[str]:
        key = str(self.folder / f"{name}.key")
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]

    def _sign(self, name: str, subject: str, by: str, extension: str, days: int = 90) -> None:
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(extension)
        _openssl(["req", "-subj", subject, *self._new_key(name), "-out", str(request)])
        authority = ["-CA", str(self.folder / f"{by}.crt"), "-CAkey", str(self.folder / f"{by}.key"), "-CAcreateserial"]
        dates = ["-days", str(days), "-extfile", str(extensions)]
        _openssl(["x509", "-req", "-in", str(request), *authority, *dates, "-out", str(self.folder / f"{name}.crt")])


def _openssl(args: list[str]) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=30)
