"""The programs of a site, started as the units say; see inside/systemctl for what is imitated of systemd."""

import re

import pytest

from tests.packaging.conftest import Machine


@pytest.mark.checklist("packaging", 19)
def test_sites_are_enabled_by_relative_links(machine: Machine) -> None:
    said = machine.run(
        """
cd /
m2gate site enable example && m2gate site enable example
readlink /etc/m2gate/sites-enabled/example.toml
m2gate site list
m2gate site disable example && m2gate site disable example
m2gate site enable nothing || echo "refused $?"
ls /etc/m2gate/sites-enabled
"""
    )
    assert "\n../sites-available/example.toml\n" in said
    assert re.search(r"^\W*example\b.*example\.test", said, re.MULTILINE)
    assert said.rstrip().endswith("refused 1")


@pytest.mark.checklist("packaging", 22, 24)
def test_each_kind_of_answer_through_tls(machine: Machine) -> None:
    said = machine.serve(
        """
curl -sS -H 'Host: shop.test' http://127.0.0.1/; echo
secure https://shop.test/; echo
secure https://shop.test/static/a.txt
head -c 3000000 /dev/zero | secure --data-binary @- -H 'Transfer-Encoding: chunked' https://shop.test/size; echo
head -c 3000000 /dev/zero | secure --data-binary @- https://shop.test/size; echo
secure -N https://shop.test/events | while read -r line; do [ -z "$line" ] || echo "$(date +%s%N) $line"; done
python3 /tests/websocket.py
stat -c '%n %a %U:%G' /run/m2gate/handlers/*
"""
    )
    lines = said.splitlines()
    assert lines[:5] == ["hello http 127.0.0.1", "hello https 127.0.0.1", "a file", "3000000", "3000000"]
    events = [line.split(" ", 1) for line in lines if "data:" in line]
    assert [text for _, text in events] == [f"data: {number}" for number in range(5)]
    times_s = [int(time) / 1e9 for time, _ in events]
    assert times_s[-1] - times_s[0] > 0.6  # as they were sent, not all at the end
    assert [line for line in lines if line.startswith("message")] == [f"message {number}" for number in range(3)]
    sockets = [line for line in lines if line.startswith("/run/m2gate/handlers/")]
    assert len(sockets) == 4
    assert all(line.endswith(" 770 m2gate-www:m2gate") for line in sockets)


@pytest.mark.checklist("packaging", 23, 27)
def test_what_the_programs_may_do(machine: Machine) -> None:
    said = machine.serve(
        """
for unit in m2gate-mongrel2@local-80 m2gate-gateway m2gate-worker@shop; do
    echo "== $unit"
    grep -E '^(Uid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/$(main_pid $unit)/status
done
"""
    )
    of = {text.split("\n", 1)[0]: dict(re.findall(r"(\w+):\s(.*)", text)) for text in said.split("== ")[1:]}
    for status in of.values():
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert status["Uid"].split()[0] != "0"
        assert "0" not in status["Groups"].split()
    capabilities = {name: (status["CapEff"], status["CapBnd"]) for name, status in of.items()}
    assert capabilities["m2gate-mongrel2@local-80"] == ("0000000000000400",) * 2  # CAP_NET_BIND_SERVICE
    assert capabilities["m2gate-gateway"] == ("0000000000000020",) * 2  # CAP_KILL
    assert capabilities["m2gate-worker@shop"] == ("0000000000000000",) * 2


@pytest.mark.checklist("packaging", 25, 26)
def test_what_a_handler_may_not_do(machine: Machine) -> None:
    said = machine.serve(
        """
for command in 'ls /run/m2gate/control' 'rm /run/m2gate/handlers/local-80.req' 'cat /etc/m2gate/certs/shop.test.key' \\
    'echo x >> /var/lib/m2gate/config.sqlite' 'ls /etc/m2gate/certs'; do
    as_handler sh -c "$command" 2>&1 | grep -o 'Permission denied' || echo "allowed: $command"
done
reach='import socket, sys; socket.socket(socket.AF_UNIX).connect("/run/m2gate/handlers/local-80.req"); print("reached")'
as_handler python3 -c "$reach"
setpriv --reuid=12345 --regid=12345 --clear-groups python3 -c "$reach" 2>&1 | tail -n 1
curl -sS -f -o /dev/null -H 'Host: shop.test' http://127.0.0.1/ && echo served
"""
    )
    assert said.splitlines()[:5] == ["Permission denied"] * 5
    assert said.splitlines()[5] == "reached"
    assert "Permission denied" in said.splitlines()[6]
    assert said.splitlines()[7:] == ["served"]


@pytest.mark.checklist("packaging", 12)
def test_the_doctor_is_content_with_what_runs(machine: Machine) -> None:
    assert machine.serve("m2gate doctor > /tmp/doctor || cat /tmp/doctor") == ""


@pytest.mark.checklist("packaging", 29)
def test_the_right_certificate_for_each_name(machine: Machine) -> None:
    said = machine.serve(
        "for one in shop.test SHOP.TEST a.wild.test a.b.wild.test other.test ''; do shown \"$one\"; done"
    )
    assert said.splitlines() == ["shop.test", "shop.test", "*.wild.test", *["default.invalid"] * 3]


def test_a_name_that_only_ends_alike_is_another(machine: Machine) -> None:
    asked = "curl -sS -o /dev/null -w '%{http_code}\\n' http://127.0.0.1/"
    assert machine.serve(f"{asked} -H 'Host: evilshop.test'; {asked} -H 'Host: other.test'") == "421\n421\n"


@pytest.mark.checklist("packaging", 20)
def test_what_cannot_work_is_refused(machine: Machine) -> None:
    said = machine.serve(
        """
sum() { sha256sum /var/lib/m2gate/config.sqlite /var/lib/m2gate/mongrel2.conf; }
before=$(sum)
refused() {
    for command in check apply; do
        m2gate config $command > /tmp/said 2>&1 && echo "accepted: $1" || tail -n 1 /tmp/said
    done
    rm -f /etc/m2gate/mongrel2.conf.d/90-local.j2 /etc/m2gate/sites-*/second.toml
    git_toml
}
cp /etc/m2gate/m2gate.toml /tmp/m2gate.toml
git_toml() { cp /tmp/m2gate.toml /etc/m2gate/m2gate.toml; }
second() { printf '%s\\n' "$@" > /etc/m2gate/sites-available/second.toml
    ln -s ../sites-available/second.toml /etc/m2gate/sites-enabled/; }
echo '{% if %}' > /etc/m2gate/mongrel2.conf.d/90-local.j2
refused template
second 'hosts = ["b.test"]' 'listen = ["127.0.0.1:443"]' '[handler.b]' 'target = "/srv/shop/app.py"' \\
    '[[route]]' 'path = "/"' 'handler = "b"'
refused port
second 'hosts = ["b.test"]' 'listen = ["127.0.0.1:80"]' '[handler."b c"]' 'target = "/srv/shop/app.py"' \\
    '[[route]]' 'path = "/"' 'handler = "b c"'
refused name
printf '[mongrel2]\\ncertdir = "/etc/m2gate/certs"\\n' > /etc/m2gate/m2gate.toml
refused certdir
[ "$before" = "$(sum)" ] && echo untouched
m2gate config check
"""
    )
    lines = said.splitlines()
    for number, place in enumerate(
        ["90-local.j2:1", "shop.toml:2: listen", "second.toml:3: handler.b c", "m2gate.toml:2: mongrel2.certdir"]
    ):
        for line in lines[2 * number : 2 * number + 2]:
            assert line.startswith("m2gate: /etc/m2gate/"), line
            assert place in line, line
    assert lines[8:] == ["untouched", "configuration is good"]


@pytest.mark.checklist("packaging", 21)
def test_an_unchanged_configuration_is_left_alone(machine: Machine) -> None:
    said = machine.serve(
        """
: > /tmp/systemctl.log
stat -c %i /var/lib/m2gate/config.sqlite > /tmp/inode
m2gate config apply
stat -c %i /var/lib/m2gate/config.sqlite | diff /tmp/inode -
cat /tmp/systemctl.log
stat -c '%a %U:%G' /var/lib/m2gate/config.sqlite
setpriv --reuid=m2gate-www --regid=m2gate-www --init-groups sh -c 'echo x >> /var/lib/m2gate/config.sqlite' 2>&1 \\
    | grep -o 'Permission denied'
"""
    )
    nothing = "nothing to do: all that is enabled is applied"
    assert said.splitlines() == [nothing, "644 root:root", "Permission denied"]


@pytest.mark.checklist("packaging", 30)
def test_the_hook_of_certbot(machine: Machine) -> None:
    """Both names get the new pair; a connection from before it answers afterwards; odd names change nothing."""
    said = machine.serve(
        """
serial() { openssl s_client -connect 127.0.0.1:443 -servername $1 < /dev/null 2> /dev/null \\
    | openssl x509 -noout -serial; }
mkdir -p /tmp/lineage
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 60 \\
    -keyout /tmp/lineage/privkey.pem -out /tmp/lineage/fullchain.pem \\
    -subj /CN=renewed -addext 'subjectAltName=DNS:wild.test,DNS:*.wild.test' 2> /dev/null
new=$(openssl x509 -noout -serial -in /tmp/lineage/fullchain.pem)
before=$(serial a.wild.test)
mkfifo /tmp/ask
openssl s_client -quiet -connect 127.0.0.1:443 -servername a.wild.test < /tmp/ask > /tmp/open 2> /dev/null &
exec 9> /tmp/ask
printf 'GET /version HTTP/1.1\\r\\nHost: a.wild.test\\r\\n\\r\\n' >&9
sleep 1
: > /tmp/systemctl.log
export RENEWED_LINEAGE=/tmp/lineage
RENEWED_DOMAINS='*.wild.test wild.test' /usr/share/m2gate/certbot-deploy-hook
sleep 0.5
cat /tmp/systemctl.log
[ "$before" != "$new" ] && [ "$(serial a.wild.test)" = "$new" ] && [ "$(serial wild.test)" = "$new" ] && echo renewed
shown shop.test
printf 'GET /version HTTP/1.1\\r\\nHost: a.wild.test\\r\\n\\r\\n' >&9
sleep 1
exec 9>&-
grep -o 'HTTP/1.1 200' /tmp/open | wc -l
stat -c '%a %U:%G' /etc/m2gate/certs/wild.test.key
as_handler cat /etc/m2gate/certs/wild.test.key 2>&1 | grep -o 'Permission denied'
for odd in '../up' '.hidden' 'a/b' 'a b*' '*.*.test'; do
    RENEWED_DOMAINS="$odd" /usr/share/m2gate/certbot-deploy-hook 2> /dev/null && echo "taken: $odd" || echo refused
done
ls -A /etc/m2gate/certs | grep -v -e '^shop.test' -e wild.test -e '^local-443' || echo nothing else
rm /etc/m2gate/certs/wild.test.*
"""
    )
    assert said.splitlines() == [
        "try-reload-or-restart 'm2gate-mongrel2@*.service'",
        "renewed",
        "shop.test",
        "2",
        "640 root:m2gate-www",
        "Permission denied",
        *["refused"] * 5,
        "nothing else",
    ]


@pytest.mark.checklist("packaging", 31)
def test_reloads_of_the_workers_lose_nothing(machine: Machine) -> None:
    """Twenty of them by the unit's own command, each with new code, beside twenty clients that ask all the time."""
    said = machine.serve(
        """
load bash -eu -c '
for number in $(seq 1 20); do
    sed -i "s/^VERSION = .*/VERSION = \\"v$number\\"/" /srv/shop/app.py
    systemctl reload m2gate-worker@shop
    until curl -sS -H "Host: shop.test" http://127.0.0.1/version | grep -q "^v$number\\$"; do sleep 0.05; done
done'
""",
        timeout_s=300,
    )
    found = re.fullmatch(r"asked (\d+), \{'200': (\d+)\}\n", said)
    assert found is not None, said
    assert found[1] == found[2]
    assert int(found[1]) > 1_000


@pytest.mark.checklist("packaging", 32)
def test_logs_are_rotated(machine: Machine) -> None:
    said = machine.serve(
        """
before=$(stat -c %i /var/log/m2gate/local-80.error.log)
logrotate -f /etc/logrotate.d/m2gate
sleep 1
ls /var/log/m2gate
stat -c '%a %U:%G' /var/log/m2gate/local-80.error.log /var/log/m2gate/local-443.error.log
[ "$(stat -c %i /var/log/m2gate/local-80.error.log)" != "$before" ] && echo new
for unit in local-80 local-443; do ls -l /proc/$(main_pid m2gate-mongrel2@$unit)/fd; done | grep -c 'error.log$'
curl -sS -f -o /dev/null -H 'Host: shop.test' http://127.0.0.1/ && secure https://shop.test/ && echo
"""
    )
    lines = said.splitlines()
    assert {"local-80.error.log", "local-80.error.log.1", "local-443.error.log.1"} <= set(lines)
    assert lines.count("640 m2gate-www:adm") == 2
    assert lines[-3] == "new"
    assert int(lines[-2]) >= 2
    assert lines[-1] == "hello https 127.0.0.1"


@pytest.mark.checklist("packaging", 33)
def test_a_stop_with_stalled_clients(machine: Machine) -> None:
    """Mongrel2 may end by SIGABRT then, which the unit takes for success; its pid file does not hinder the next one."""
    said = machine.serve(
        """
sed -n 's/^SuccessExitStatus=//p' /lib/systemd/system/m2gate-mongrel2@.service
for number in $(seq 1 20); do
    (exec 8<> /dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.1\\r\\nHost: sh' >&8; sleep 30) &
done
sleep 0.5
timeout 20 systemctl stop m2gate-mongrel2@local-80
ls /run/m2gate/control/
systemctl start m2gate-mongrel2@local-80
curl -sS -f --retry 20 --retry-delay 1 --retry-all-errors -H 'Host: shop.test' http://127.0.0.1/; echo
"""
    )
    assert said.splitlines()[0] == "SIGABRT"
    assert said.splitlines()[-1] == "hello http 127.0.0.1"
