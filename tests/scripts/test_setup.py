"""scripts/lib.sh with programs that only write down how they were called."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ["bash", "cat", "dirname", "env", "grep", "id", "sha256sum", "tee"]
RECORD = '#!/bin/bash\necho "${0##*/} $*" >>"$LOG"\n'


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A directory for PATH where dpkg knows only the package `present`, and apt-get always succeeds."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        (programs / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/bin/{tool}")
    scripts = {
        "dpkg-query": '#!/bin/bash\n[[ "${*: -1}" == present ]] && echo "ii "\n',
        "apt-get": RECORD,
        "sudo": '#!/bin/bash\nexec "$@"\n',
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return programs


def shell(machine: Path, script: str) -> tuple[int, str, list[str]]:
    """Exit status, stderr and what was recorded of a script that has sourced lib.sh."""
    log = machine.parent / "log"
    log.touch()
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", f"source {ROOT}/scripts/lib.sh; {script}", "setup"],
        env={"PATH": str(machine), "LOG": str(log)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr, log.read_text().splitlines()


def test_nothing_is_said_when_all_is_there(machine: Path) -> None:
    assert shell(machine, "apt_ensure present") == (0, "", [])


def test_only_what_is_missing_is_installed(machine: Path) -> None:
    status, said, calls = shell(machine, "apt_ensure present absent other")
    assert (status, said) == (0, "setup: apt-get install absent other\n")
    install = "apt-get install -y -qq --no-install-recommends absent other"
    assert calls == ["apt-get update -qq", install]


def test_stale_lists_do_not_stop_it(machine: Path) -> None:
    (machine / "apt-get").write_text(RECORD + '[[ "$1" != update ]]\n')
    status, said, calls = shell(machine, "apt_ensure absent")
    assert (status, len(calls)) == (0, 2)
    assert "going on with the lists at hand" in said


def test_a_failed_installation_ends_with_a_line(machine: Path) -> None:
    (machine / "apt-get").write_text(RECORD + '[[ "$1" != install ]]\n')
    status, said, _ = shell(machine, "apt_ensure absent; echo not reached >&2")
    assert status == 1
    assert said.splitlines()[-1] == "setup: apt-get install failed; the lines above say why"


def test_another_system_is_told_what_it_needs(machine: Path) -> None:
    (machine / "dpkg-query").unlink()
    status, said, calls = shell(machine, "apt_ensure mongrel2-core openssl")
    assert (status, calls) == (1, [])
    assert said == "setup: this is no Debian system; install the equivalents of: mongrel2-core openssl\n"


def test_without_sudo_the_command_is_named(machine: Path) -> None:
    (machine / "id").unlink()
    (machine / "id").write_text("#!/bin/bash\necho 1000\n")
    (machine / "id").chmod(0o755)
    (machine / "sudo").unlink()
    status, said, calls = shell(machine, "apt_ensure absent")
    assert (status, calls) == (1, [])
    assert said == "setup: no sudo here; as root run: apt-get install --no-install-recommends absent\n"


def test_sudo_is_used_by_others_than_root(machine: Path) -> None:
    (machine / "id").unlink()
    (machine / "id").write_text("#!/bin/bash\necho 1000\n")
    (machine / "id").chmod(0o755)
    (machine / "sudo").write_text(RECORD + 'exec "$@"\n')
    status, _, calls = shell(machine, "apt_ensure absent")
    assert (status, [call.split()[0] for call in calls]) == (0, ["sudo", "apt-get", "sudo", "apt-get"])
