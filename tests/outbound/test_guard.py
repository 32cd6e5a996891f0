"""The guard of requests that leave: what it lets through, what it refuses before anything is sent, and why."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2gate.errors import ConfigError, UrlRefused
from m2gate.outbound.guard import ADDRESSES_MAX, Guard
from m2gate.outbound.policy import Policy, parse_network
from m2gate.outbound.url import Url, parse_url

PUBLIC = "93.184.216.34"

# Each with the rule that refuses it.
REFUSED = [
    # one host in many spellings
    ("http://127.0.0.1/", "address"),
    ("http://127.0.0.1./", "address"),
    ("http://127.1/", "syntax"),
    ("http://127.0.1/", "syntax"),
    ("http://2130706433/", "syntax"),
    ("http://0x7f000001/", "syntax"),
    ("http://0x7f.0.0.1/", "syntax"),
    ("http://127.0.0.0x1/", "syntax"),
    ("http://017700000001/", "syntax"),
    ("http://0177.0.0.1/", "syntax"),
    ("http://127.000.000.001/", "syntax"),
    ("http://127.0.0.256/", "syntax"),
    ("http://127.0.0.1.1/", "syntax"),
    ("http://0/", "syntax"),
    ("http://0.0.0.0/", "address"),
    ("http://0.0.0.0:8080/", "address"),
    ("http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/", "address"),
    ("http://127\u30020\u30020\u30021/", "address"),
    ("http://\u246b7.0.0.1/", "address"),
    ("http://localhost/", "name"),
    ("http://LOCALHOST/", "name"),
    ("http://localhost./", "name"),
    ("http://\u24dbocalhost/", "name"),
    ("http://local\u00adhost/", "name"),
    ("http://a.localhost/", "name"),
    ("http://localhost.localdomain/", "name"),
    ("http://ip6-localhost/", "name"),
    ("http://ip6-loopback.shop.com/", "name"),
    ("http://intranet/", "name"),
    ("http://printer.local/", "name"),
    ("http://metadata.google.internal/", "name"),
    ("http://router.home.arpa/", "name"),
    ("http://abcdefgh.onion/", "name"),
    ("http://shop.test/", "name"),
    ("http://shop.invalid/", "name"),
    ("http://shop.example/", "name"),
    ("http://kubernetes.default.svc/", "name"),
    ("http://1.0.0.127.in-addr.arpa/", "name"),
    # special-purpose addresses
    ("http://10.0.0.1/", "address"),
    ("http://100.64.0.1/", "address"),
    ("http://127.255.255.254/", "address"),
    ("http://169.254.169.254/latest/meta-data/", "address"),
    ("http://172.16.0.1/", "address"),
    ("http://172.31.255.255/", "address"),
    ("http://192.0.0.192/", "address"),
    ("http://192.0.2.1/", "address"),
    ("http://192.88.99.1/", "address"),
    ("http://192.168.1.1/", "address"),
    ("http://198.18.0.1/", "address"),
    ("http://198.51.100.1/", "address"),
    ("http://203.0.113.1/", "address"),
    ("http://224.0.0.1/", "address"),
    ("http://240.0.0.1/", "address"),
    ("http://255.255.255.255/", "address"),
    ("http://[::1]/", "address"),
    ("http://[::]/", "address"),
    ("http://[0:0:0:0:0:0:0:1]/", "address"),
    ("http://[::127.0.0.1]/", "address"),
    ("http://[::ffff:127.0.0.1]/", "address"),
    ("http://[::ffff:7f00:1]/", "address"),
    ("http://[::ffff:0:127.0.0.1]/", "address"),
    ("http://[64:ff9b::7f00:1]/", "address"),
    ("http://[64:ff9b:1::1]/", "address"),
    ("http://[100::1]/", "address"),
    ("http://[2001::1]/", "address"),
    ("http://[2001:db8::1]/", "address"),
    ("http://[2002:7f00:1::]/", "address"),
    ("http://[3fff::1]/", "address"),
    ("http://[5f00::1]/", "address"),
    ("http://[fc00::1]/", "address"),
    ("http://[fd00:ec2::254]/", "address"),
    ("http://[fe80::1]/", "address"),
    ("http://[fec0::1]/", "address"),
    ("http://[ff02::1]/", "address"),
    # what two parsers may read differently
    ("http://[::1%25lo]/", "syntax"),
    ("http://[fe80::1%eth0]/", "syntax"),
    ("http://[::1]x/", "syntax"),
    ("http://[v1.x]/", "syntax"),
    ("http://[127.0.0.1]/", "syntax"),
    ("http://::1/", "syntax"),
    ("http://127.0.0.1\\@shop.com/", "syntax"),
    ("http://shop.com\\.evil.com/", "syntax"),
    ("http://shop.com@127.0.0.1/", "syntax"),
    ("http://user:secret@shop.com/", "syntax"),
    ("http://@shop.com/", "syntax"),
    ("http://127.0.0.1#@shop.com/", "address"),
    ("http://127.0.0.1?@shop.com/", "address"),
    (" http://shop.com/", "syntax"),
    ("http://shop.com/\n", "syntax"),
    ("http://sh\top.com/", "syntax"),
    ("http://shop.com/a b", "syntax"),
    ("http://shop.com/\r\nHost: evil", "syntax"),
    ("http://shop.com\x00.evil.com/", "syntax"),
    ("http://shop%2ecom/", "syntax"),
    ("http://shop.com%00/", "syntax"),
    ("http://shop..com/", "syntax"),
    ("http://-shop.com/", "syntax"),
    ("http://.com/", "syntax"),
    ("http:///path", "syntax"),
    ("http://", "syntax"),
    ("http:/shop.com/", "syntax"),
    ("//shop.com/", "syntax"),
    ("shop.com", "syntax"),
    ("", "syntax"),
    ("http://shop.com:0/", "syntax"),
    ("http://shop.com:65536/", "syntax"),
    ("http://shop.com:080/", "syntax"),
    ("http://shop.com:/", "syntax"),
    ("http://shop.com:80:80/", "syntax"),
    ("http://shop.com:\uff18\uff10/", "syntax"),
    ("http://shop.com/%zz", "syntax"),
    ("http://shop.com/ä", "syntax"),
    ("http://shop.com/[x]", "syntax"),
    ("file:///etc/passwd", "syntax"),
    ("gopher://shop.com:70/1", "syntax"),
    ("ftp://shop.com/", "syntax"),
    ("javascript://shop.com/%0aalert(1)", "syntax"),
    ("ipc:///run/m2gate/control/any-80.control", "syntax"),
    ("ws://127.0.0.1/", "address"),
    ("wss://[::1]/", "address"),
    ("https://localhost/", "name"),
    (f"http://shop.com/{'a' * 9000}", "syntax"),
    (f"http://{'a.' * 130}com/", "syntax"),
    (f"http://{'a' * 64}.com/", "syntax"),
]
ALLOWED = [
    ("http://shop.com", Url("http", "shop.com", 80, "/")),
    ("http://shop.com/", Url("http", "shop.com", 80, "/")),
    ("HTTP://SHOP.COM/A", Url("http", "shop.com", 80, "/A")),
    ("http://shop.com./", Url("http", "shop.com", 80, "/")),
    ("https://shop.com/", Url("https", "shop.com", 443, "/")),
    ("ws://shop.com/chat", Url("ws", "shop.com", 80, "/chat")),
    ("wss://shop.com/chat", Url("wss", "shop.com", 443, "/chat")),
    ("http://shop.com:8080/", Url("http", "shop.com", 8080, "/")),
    ("http://shop.com:65535/", Url("http", "shop.com", 65_535, "/")),
    ("http://shop.com?a=1", Url("http", "shop.com", 80, "/?a=1")),
    ("http://shop.com/?a=1&b=%20", Url("http", "shop.com", 80, "/?a=1&b=%20")),
    ("http://shop.com/a/../b", Url("http", "shop.com", 80, "/a/../b")),
    ("http://shop.com//a", Url("http", "shop.com", 80, "//a")),
    ("http://shop.com#@127.0.0.1/", Url("http", "shop.com", 80, "/")),
    ("http://shop.com/#top", Url("http", "shop.com", 80, "/")),
    ("http://shop.com/a?b#c?d", Url("http", "shop.com", 80, "/a?b")),
    ("http://shop.com/@me", Url("http", "shop.com", 80, "/@me")),
    ("http://shop.com/?u=http://127.0.0.1/", Url("http", "shop.com", 80, "/?u=http://127.0.0.1/")),
    ("http://shop.com/~a;b=c,d!$'()*+", Url("http", "shop.com", 80, "/~a;b=c,d!$'()*+")),
    ("http://a-b.c-d.co.uk/", Url("http", "a-b.c-d.co.uk", 80, "/")),
    ("http://_dmarc.shop.com/", Url("http", "_dmarc.shop.com", 80, "/")),
    ("http://1.shop.com/", Url("http", "1.shop.com", 80, "/")),
    ("http://xn--mnchen-3ya.de/", Url("http", "xn--mnchen-3ya.de", 80, "/")),
    ("http://münchen.de/", Url("http", "xn--mnchen-3ya.de", 80, "/")),
    ("http://localhost.com/", Url("http", "localhost.com", 80, "/")),
    ("http://notlocalhost.org/", Url("http", "notlocalhost.org", 80, "/")),
    ("http://93.184.216.34/", Url("http", "93.184.216.34", 80, "/")),
    ("http://8.8.8.8:53/", Url("http", "8.8.8.8", 53, "/")),
    ("http://172.32.0.1/", Url("http", "172.32.0.1", 80, "/")),
    ("http://100.128.0.1/", Url("http", "100.128.0.1", 80, "/")),
    ("http://[2606:2800:220:1:248:1893:25c8:1946]/", Url("http", "2606:2800:220:1:248:1893:25c8:1946", 80, "/")),
    ("http://[2001:4860:4860::8888]:8080/", Url("http", "2001:4860:4860::8888", 8080, "/")),
]


class Zone:
    """A resolver that counts its questions."""

    def __init__(self, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers) or [[PUBLIC]]

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.mark.parametrize(("text", "rule"), REFUSED)
def test_urls_that_lead_inside_or_are_odd(text: str, rule: str) -> None:
    zone = Zone()
    decision = Guard(resolve=zone).examine(text)
    assert not decision.is_allowed
    assert decision.addresses == ()
    assert decision.steps[-1].rule == rule, decision
    assert decision.steps[-1].text
    assert zone.asked == []  # nothing has left, not even a question for the name


def test_there_are_eighty_of_them() -> None:
    assert len(REFUSED) >= 80
    assert len(ALLOWED) >= 30
    assert len(set(REFUSED)) == len(REFUSED)


@pytest.mark.parametrize(("text", "url"), ALLOWED)
def test_good_urls(text: str, url: Url) -> None:
    zone = Zone()
    found, addresses = Guard(resolve=zone).check(text)
    assert found == url
    assert addresses == (ipaddress.ip_address(url.host) if url.address else ipaddress.ip_address(PUBLIC),)
    assert zone.asked == ([] if url.address else [url.host])


@pytest.mark.parametrize(("text", "url"), ALLOWED)
def test_the_parts_give_the_url_again(text: str, url: Url) -> None:
    assert parse_url(str(url)) == url, text


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://shop.com", "http://127.0.0.1", "ws://[::1"]))
def test_whatever_comes_is_refused_or_read_once(text: str, start: str) -> None:
    decision = Guard(resolve=Zone()).examine(start + text)
    if decision.is_allowed:
        assert decision.url is not None
        assert parse_url(str(decision.url)) == decision.url
        assert decision.url.host.isascii()
        assert not set(decision.url.target) & set(' \t\r\n\0\\"<>')


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["127.0.0.1", "10.0.0.8", "::1", "::ffff:10.0.0.1", "169.254.169.254", "fe80::1%eth0"])
@pytest.mark.parametrize("place", [0, 1])
def test_one_bad_address_spoils_the_answer(bad: str, place: int) -> None:
    answer = [PUBLIC]
    answer.insert(place, bad)
    zone = Zone(answer)
    with pytest.raises(UrlRefused) as caught:
        Guard(resolve=zone).check("http://mixed.com/")
    assert caught.value.rule == "address"
    assert not caught.value.may_pass_later
    assert zone.asked == ["mixed.com"]


def test_the_answer_that_was_judged_is_the_one_that_counts() -> None:
    """The name leads inside when it is asked again; whoever connects to what check() returned never asks again."""
    zone = Zone([PUBLIC], ["127.0.0.1"])
    guard = Guard(resolve=zone)
    _, addresses = guard.check("http://rebind.com/")
    assert [str(one) for one in addresses] == [PUBLIC]
    assert zone.asked == ["rebind.com"]
    with pytest.raises(UrlRefused):
        guard.check("http://rebind.com/")


def test_an_answer_is_bounded() -> None:
    answer = [f"93.184.216.{number}" for number in range(50)]
    _, addresses = Guard(resolve=Zone(answer)).check("http://many.com/")
    assert [str(one) for one in addresses] == answer[:ADDRESSES_MAX]


@pytest.mark.parametrize("error", [OSError("no such name"), UnicodeError("label too long")])
def test_a_name_that_cannot_be_resolved_may_be_later(error: Exception) -> None:
    def resolve(_host: str) -> list[str]:
        raise error

    with pytest.raises(UrlRefused, match="cannot be resolved") as caught:
        Guard(resolve=resolve).check("http://gone.com/")
    assert caught.value.may_pass_later


def test_an_empty_answer_may_be_another_later() -> None:
    with pytest.raises(UrlRefused, match="has no address") as caught:
        Guard(resolve=Zone([])).check("http://empty.com/")
    assert caught.value.may_pass_later


def test_the_peer_is_judged_as_well() -> None:
    guard = Guard()
    guard.check_peer(PUBLIC)
    with pytest.raises(UrlRefused):
        guard.check_peer("127.0.0.1")


def test_a_refusal_says_why() -> None:
    with pytest.raises(UrlRefused) as caught:
        Guard(resolve=Zone(["10.0.0.8"])).check("http://inside.com/")
    assert str(caught.value) == "address: 10.0.0.8: 10.0.0.0/8 is not public"
    steps = Guard(resolve=Zone()).examine("https://shop.com/a").steps
    assert [(step.rule, step.text) for step in steps] == [
        ("syntax", "https, host shop.com, port 443, target /a"),
        ("policy", "scheme and port are allowed"),
        ("name", "nothing is known against shop.com"),
        ("resolve", PUBLIC),
        ("address", f"{PUBLIC} may be reached"),
    ]


# -- what the operator says ---------------------------------------------------------------------------


def allows(policy: Policy, text: str, answer: str = PUBLIC) -> bool:
    return Guard(policy, Zone([answer])).examine(text).is_allowed


def test_networks_that_are_allowed() -> None:
    policy = Policy(allow_networks=(parse_network("10.1.2.0/24", "test"),), allow_hosts=("db.internal",))
    assert allows(policy, "http://10.1.2.3/")
    assert not allows(policy, "http://10.1.3.3/")
    assert allows(policy, "http://db.internal/", "10.1.2.3")
    assert not allows(policy, "http://db.internal/", "10.1.3.3")
    assert not allows(policy, "http://other.internal/", "10.1.2.3")
    assert allows(policy, "http://shop.com/", "10.1.2.3")


def test_what_is_denied_stays_denied() -> None:
    everything = (parse_network("0.0.0.0/0", "test"),)
    policy = Policy(allow_networks=everything, deny_networks=(parse_network("93.184.216.0/24", "test"),))
    assert not allows(policy, "http://shop.com/")
    assert allows(policy, "http://shop.com/", "127.0.0.1")
    policy = Policy(allow_hosts=("*.shop.com",), deny_hosts=("evil.shop.com",))
    assert not allows(policy, "http://evil.shop.com/")
    assert allows(policy, "http://good.shop.com/")


@pytest.mark.parametrize(
    ("pattern", "host", "is_denied"),
    [
        ("shop.com", "shop.com", True),
        ("shop.com", "a.shop.com", False),
        ("*.shop.com", "a.shop.com", True),
        ("*.shop.com", "a.b.shop.com", True),
        ("*.shop.com", "shop.com", False),
        ("*.shop.com", "evilshop.com", False),
    ],
)
def test_patterns_of_names(pattern: str, host: str, is_denied: bool) -> None:
    assert allows(Policy(deny_hosts=(pattern,)), f"http://{host}/") is not is_denied


def test_ports_and_schemes() -> None:
    assert not allows(Policy(deny_ports=frozenset({25})), "http://shop.com:25/")
    assert allows(Policy(deny_ports=frozenset({25})), "http://shop.com/")
    assert allows(Policy(allow_ports=frozenset({443})), "https://shop.com/")
    assert not allows(Policy(allow_ports=frozenset({443})), "http://shop.com/")
    assert not allows(Policy(schemes=frozenset({"https"})), "http://shop.com/")


def test_a_mapped_address_is_no_way_around_an_allowed_network() -> None:
    assert not allows(Policy(allow_networks=(parse_network("10.1.2.0/24", "test"),)), "http://[::ffff:10.1.2.3]/")


@pytest.mark.parametrize("text", ["10.1.2.3/24", "inside", "", "10.0.0.0/33", "::1/200"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ConfigError, match="no network"):
        parse_network(text, "--allow-net")
