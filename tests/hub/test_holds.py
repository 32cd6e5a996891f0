from m2gate.hub.holds import NEVER, Hold, Holds
from tests.hub.fakes import RAW, FakeServer, Owner


def hold(expires_s: float = NEVER, ping: bytes = b"", ping_s: float = NEVER) -> Hold:
    return Hold(FakeServer().connect(), expires_s=expires_s, ping=ping, ping_s=ping_s)


def test_expires_once_and_not_before() -> None:
    holds: Holds[Hold] = Holds()
    one = hold(expires_s=155.0)
    holds.add(one, 100.0)
    assert holds.tick(154.9) == ([], [])
    assert holds.tick(155.0) == ([one], [])
    assert one.ended
    assert holds.tick(999.0) == ([], [])
    assert len(holds) == 0


def test_pings_after_each_stretch_of_silence() -> None:
    holds: Holds[Hold] = Holds()
    one = hold(ping=b":\n\n", ping_s=15.0)
    holds.add(one, 100.0)
    assert holds.tick(114.0) == ([], [])
    assert holds.tick(115.0) == ([], [one])
    assert holds.tick(116.0) == ([], [])
    assert holds.tick(130.0) == ([], [one])


def test_without_ping_or_expiry_nothing_is_ever_due() -> None:
    holds: Holds[Hold] = Holds()
    holds.add(hold(ping_s=1.0), 100.0)
    assert holds.tick(1e9) == ([], [])
    assert len(holds) == 1


def test_a_write_by_somebody_else_puts_the_ping_off() -> None:
    holds: Holds[Hold] = Holds()
    one = hold(ping=b".", ping_s=15.0)
    holds.add(one, 100.0)
    one.touched_s = 110.0
    assert holds.tick(115.0) == ([], [])
    assert holds.tick(125.0) == ([], [one])


def test_an_item_puts_the_ping_off_and_only_on_its_channel() -> None:
    owner, server, holds = Owner(), FakeServer(), Holds[Hold]()
    outlets = [server.connect(), server.connect()]
    both = []
    for name, outlet in zip(["busy", "quiet"], outlets, strict=True):
        one = Hold(outlet, ping=b".", ping_s=15.0)
        one.subscribers.append(owner.hub.subscribe(name, outlet, RAW, 100.0))
        holds.add(one, 100.0)
        both.append(one)
    owner.now_s = 112.0
    owner.publish("busy", "x")
    owner.flush()
    assert holds.tick(115.0) == ([], [both[1]])
    assert holds.tick(127.0) == ([], [both[0]])


def test_bytes_sent_to_a_laggard_put_its_ping_off() -> None:
    owner, server, holds = Owner(), FakeServer(), Holds[Hold]()
    outlet = server.connect(window=10)
    one = Hold(outlet, ping=b".", ping_s=15.0)
    one.subscribers.append(owner.hub.subscribe("c", outlet, RAW, 100.0))
    holds.add(one, 100.0)
    owner.publish("c", "0123456789")
    owner.flush()
    owner.publish("c", "more")
    owner.flush()
    assert outlet.received == b"0123456789"
    owner.now_s = 114.0
    outlet.read()
    owner.flush()
    assert outlet.received == b"0123456789more"
    assert holds.tick(120.0) == ([], [])
    assert holds.tick(129.0) == ([], [one])


def test_ended_holds_are_forgotten_before_they_are_due() -> None:
    holds: Holds[Hold] = Holds()
    many = [hold(expires_s=155.0) for _ in range(100)]
    for one in many:
        holds.add(one, 100.0)
    for one in many[:60]:
        holds.end(one)
        holds.end(one)
    assert len(holds) == 40
    assert set(holds) == set(many[60:])
    expired, _ = holds.tick(155.0)
    assert expired == many[60:]
    assert len(holds) == 0


def test_those_that_are_left_stay_in_the_order_of_their_deadlines() -> None:
    holds: Holds[Hold] = Holds()
    many = [hold(expires_s=100.0 + number * 37 % 101) for number in range(101)]
    for one in many:
        holds.add(one, 100.0)
    for one in many[:70]:
        holds.end(one)
    for deadline_s in sorted(one.expires_s for one in many[70:]):
        assert [one.expires_s for one in holds.tick(deadline_s)[0]] == [deadline_s]
    assert len(holds) == 0
