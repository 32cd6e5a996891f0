# Set-up that scripts/run and scripts/test share; sourced by bash, never run.
# Every function says on stderr what it changes and is silent when nothing is to do.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV # of a shell that has another project's environment active

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# apt_ensure PACKAGE...: installs those that dpkg does not know as installed.
apt_ensure() {
    local package missing=() as_root=()
    command -v dpkg-query >/dev/null || die "this is no Debian system; install the equivalents of: $*"
    for package in "$@"; do
        dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if [[ "$(id -u)" != 0 ]]; then
        command -v sudo >/dev/null || die "no sudo here; as root run: apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    say "apt-get install ${missing[*]}"
    # Stale package lists are common on a fresh machine; an unreachable mirror need not be fatal.
    "${as_root[@]}" apt-get update -qq >&2 || say "apt-get update failed; going on with the lists at hand"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
        die "apt-get install failed; the lines above say why"
}

# build_dep_ensure FOLDER: installs what debian/control of this source needs to be built.
build_dep_ensure() {
    local as_root=()
    apt_ensure build-essential debhelper dpkg-dev fakeroot
    dpkg-checkbuilddeps "$1/debian/control" 2>/dev/null && return
    [[ "$(id -u)" == 0 ]] || as_root=(sudo)
    say "apt-get build-dep $1"
    "${as_root[@]}" apt-get update -qq >&2 || say "apt-get update failed; going on with the lists at hand"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get build-dep -y -qq --no-install-recommends "$1" >&2 ||
        die "apt-get build-dep failed; the lines above say why"
}

# find_python: sets $python to Debian's Python if it is new enough, else to the first one on PATH that is.
find_python() {
    for python in /usr/bin/python3 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return 0
        fi
    done
    die "Python 3.11 or newer is needed, Debian 12 has it as python3"
}

# fingerprint TEXT...: what a virtual environment was made from; a changed or moved tree has another one.
fingerprint() {
    { printf '%s\n' "$root" "$@" && cat "$root/setup.cfg" "$root/pyproject.toml" "$root/m2gate/version.py"; } | sha256sum
}

# venv_ensure EXTRAS: $root/.venv with this tree installed editable. EXTRAS is [examples] or [dev], which has all
# that the examples need: an environment for the tests also does for them.
venv_ensure() {
    local extras="$1" venv="$root/.venv" stamp="$root/.venv/m2gate-stamp" wanted
    find_python
    wanted="$(fingerprint "$("$python" -VV)")"
    if [[ -f "$stamp" ]] && { [[ "$(<"$stamp")" == "$wanted [dev]" ]] || [[ "$(<"$stamp")" == "$wanted $extras" ]]; }; then
        return 0
    fi
    say "making .venv with $("$python" -V) and m2gate$extras"
    # --clear: an environment copied along with the tree points at the old place.
    "$python" -m venv --clear "$venv" || die "could not make .venv; is python3-venv installed?"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root$extras" >&2 ||
        die "pip could not install m2gate$extras; the lines above say why"
    printf '%s\n' "$wanted $extras" >"$stamp"
}
