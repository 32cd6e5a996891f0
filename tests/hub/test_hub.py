import pytest

from m2gate.hub.form import WEBSOCKET, Form, ResponseForm, StreamForm
from m2gate.hub.group import MERGE_BYTES
from m2gate.hub.hub import STALL_S, Hub
from m2gate.hub.item import Formats, Item
from m2gate.hub.policy import Policy, Rule
from m2gate.wire.mongrel2 import CREDITS_INITIAL
from tests.hub.fakes import CHUNKED, RAW, FakeOutlet, FakeServer, Owner


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def connect(owner: Owner, server: FakeServer, count: int, channel: str = "c") -> list[FakeOutlet]:
    outlets = [server.connect() for _ in range(count)]
    for outlet in outlets:
        owner.subscribe(channel, outlet)
    return outlets


# -- publish and flush ------------------------------------------------------------------------------


def test_nobody_is_matched_and_nothing_woken(owner: Owner) -> None:
    assert owner.publish("c", "x") == (0, 0, 0)
    assert owner.wakes == 0


def test_publish_wakes_and_flush_sends(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect()
    owner.subscribe("c", outlet)
    assert owner.publish("c", "x") == (1, 0, 0)
    assert owner.wakes > 0
    assert server.frames == []
    owner.flush()
    assert server.frames == [b"m2 1:1, x"]
    assert outlet.outstanding == 1


SPLITS = [(1, [1]), (128, [128]), (129, [128, 1]), (256, [128, 128]), (300, [128, 128, 44])]


@pytest.mark.checklist("mongrel2", 21)
@pytest.mark.parametrize(("count", "sizes"), SPLITS)
def test_a_message_names_at_most_128(owner: Owner, server: FakeServer, count: int, sizes: list[int]) -> None:
    outlets = connect(owner, server, count)
    owner.publish("c", "hello")
    owner.flush()
    assert [frame.split(b":", 1)[1].split(b",")[0].count(b" ") + 1 for frame in server.frames] == sizes
    assert all(outlet.received == b"hello" for outlet in outlets)


@pytest.mark.checklist("mongrel2", 42)
def test_each_is_charged_and_those_without_credit_are_queued(owner: Owner, server: FakeServer) -> None:
    fast, slow = server.connect(window=100), server.connect(window=4)
    owner.subscribe("c", fast)
    owner.subscribe("c", slow)
    for text in ("one", "two", "three"):
        owner.publish("c", text)
        owner.flush()
    assert fast.received == b"onetwothree"
    assert fast.outstanding == 11
    assert slow.received == b"one"
    assert slow.outstanding == 3
    for _ in range(10):
        slow.read()
        owner.flush()
    assert slow.received == b"onetwothree"
    assert owner.hub.stats().channels["c"].lagging == 0


def test_items_of_one_turn_leave_as_one_write(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect()
    owner.subscribe("c", outlet, CHUNKED)
    for text in ("a", "b", "c"):
        owner.publish("c", text)
    owner.flush()
    assert server.frames == [b"m2 1:1, 1\r\na\r\n1\r\nb\r\n1\r\nc\r\n"]


def test_writes_end_at_the_merge_size(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect()
    owner.subscribe("c", outlet)
    size = MERGE_BYTES // 4
    for _ in range(9):
        owner.publish("c", "x" * size)
    assert owner.hub.fullest_bytes == 9 * size
    owner.flush()
    assert owner.hub.fullest_bytes == 0
    assert [len(frame) - len(b"m2 1:1, ") for frame in server.frames] == [4 * size, 4 * size, size]


def test_an_item_over_the_merge_size_goes_alone(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect()
    owner.subscribe("c", outlet)
    for size in (10, MERGE_BYTES + 1, 10, 10):
        owner.publish("c", "x" * size)
    owner.flush()
    assert [len(frame) - len(b"m2 1:1, ") for frame in server.frames] == [10, MERGE_BYTES + 1, 20]


def test_an_item_over_the_window_arrives_in_pieces(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect()
    owner.subscribe("c", outlet)
    big = "0123456789" * 50_000
    assert owner.publish("c", big) == (1, 0, 0)
    owner.publish("c", "after")
    owner.flush()
    while outlet.unread:
        outlet.read()
        owner.flush()
    assert outlet.received == big.encode() + b"after"


def test_a_burst_beyond_the_window_is_queued_from_where_it_ends(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=50_000)
    owner.subscribe("c", outlet)
    for letter in "abcdefghij":
        owner.publish("c", letter * 12_000)
    owner.flush()
    assert len(outlet.received) == 4 * 12_000
    assert owner.hub.stats().channels["c"].queued_bytes == 6 * 12_000
    while outlet.unread:
        outlet.read()
        owner.flush()
    assert outlet.received.decode() == "".join(letter * 12_000 for letter in "abcdefghij")


def test_a_window_that_is_just_filled_is_no_lag(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=10)
    owner.subscribe("c", outlet)
    owner.publish("c", "0123456789")
    owner.flush()
    assert outlet.received == b"0123456789"
    assert owner.hub.stats().channels["c"].lagging == 0
    assert outlet.on_room is None


def test_forms_and_servers_have_groups_of_their_own(owner: Owner) -> None:
    servers = [FakeServer(b"one"), FakeServer(b"two")]
    outlets = [server.connect() for server in servers for _ in range(3)]
    forms: list[Form] = [RAW, CHUNKED, WEBSOCKET]
    for outlet, form in zip(outlets, forms * 2, strict=True):
        owner.subscribe("c", outlet, form)
    assert owner.publish("c", "x") == (6, 0, 0)
    owner.flush()
    assert [outlet.received for outlet in outlets] == [b"x", b"1\r\nx\r\n", b"\x81\x01x"] * 2
    assert [len(server.frames) for server in servers] == [3, 3]


def test_an_item_is_encoded_once_for_all_of_a_form(owner: Owner, server: FakeServer) -> None:
    encoded = []

    class Counting(StreamForm):
        def encode(self, item: Item) -> bytes | None:
            encoded.append(item)
            return super().encode(item)

    form = Counting(chunked=False, events=False)
    other = FakeServer(b"other")
    for outlet in [server.connect(), server.connect(), other.connect()]:
        owner.subscribe("c", outlet, form)
    assert owner.publish("c", "x") == (3, 0, 0)
    assert len(encoded) == 1


def test_kinds_without_a_format_are_not_matched(owner: Owner, server: FakeServer) -> None:
    stream, websocket = server.connect(), server.connect()
    owner.subscribe("c", stream, RAW)
    owner.subscribe("c", websocket, WEBSOCKET)
    receipt = owner.hub.publish(Item(channel="c", content=None, formats=Formats(message="M")))
    assert receipt.matched == 1
    owner.flush()
    assert (stream.received, websocket.received) == (b"", b"\x81\x01M")


def test_an_item_that_cannot_be_expressed_reaches_nobody(owner: Owner, server: FakeServer) -> None:
    plain, events = server.connect(), server.connect()
    owner.subscribe("c", plain, RAW)
    owner.subscribe("c", events, StreamForm(chunked=False, events=True))
    with pytest.raises(ValueError, match="event"):
        owner.hub.publish(Item(channel="c", content="x", event="a\nb"))
    owner.publish("c", "y")
    owner.flush()
    assert (plain.received, events.received) == (b"y", b"data: y\n\n")


# -- who listens ------------------------------------------------------------------------------------


def test_a_newcomer_gets_what_is_published_after_it_came(owner: Owner, server: FakeServer) -> None:
    first, second = server.connect(), server.connect()
    owner.subscribe("c", first)
    owner.publish("c", "1")
    owner.subscribe("c", second)
    owner.publish("c", "2")
    owner.flush()
    assert (first.received, second.received) == (b"12", b"2")


def test_who_leaves_gets_what_was_published_before(owner: Owner, server: FakeServer) -> None:
    stays, leaves = connect(owner, server, 2)
    subscriber = owner.hub.subscribe("c", leaves, RAW, owner.now_s)
    owner.publish("c", "1")
    owner.hub.unsubscribe(subscriber, owner.now_s)
    owner.hub.unsubscribe(subscriber, owner.now_s)
    assert owner.publish("c", "2") == (1, 0, 0)
    owner.flush()
    assert (stays.received, leaves.received) == (b"12", b"1")


def test_who_leaves_while_it_lags_gets_its_queue(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=3)
    owner.subscribe("c", outlet)
    for text in ("one", "two", "six"):
        owner.publish("c", text)
        owner.flush()
    owner.wakes = 0
    owner.hub.release(outlet, owner.now_s)
    assert owner.wakes > 0
    owner.flush()
    assert outlet.on_room is None
    while outlet.unread:
        outlet.read()
    assert outlet.received == b"onetwosix"
    assert owner.hub.stats().drops == {}


def test_who_leaves_lagging_and_comes_back_keeps_the_order(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=3)
    owner.subscribe("c", outlet)
    for text in ("one", "two"):
        owner.publish("c", text)
        owner.flush()
    outlet.read()
    owner.hub.release(outlet, owner.now_s)
    owner.subscribe("c", outlet)
    owner.publish("c", "six")
    while outlet.unread or owner.wakes:
        owner.flush()
        outlet.read()
    assert outlet.received == b"onetwosix"


def test_a_form_that_nobody_has_any_more_is_not_encoded(owner: Owner, server: FakeServer) -> None:
    class Forbidden(StreamForm):
        def encode(self, item: Item) -> bytes | None:
            raise AssertionError("nobody has this form")

    connect(owner, server, 1)
    outlet = server.connect()
    owner.subscribe("c", outlet, Forbidden(chunked=True, events=False))
    owner.hub.discard(outlet)
    assert owner.publish("c", "x") == (1, 0, 0)


def test_subscribing_twice_is_one_subscription(owner: Owner, server: FakeServer) -> None:
    (outlet,) = connect(owner, server, 1)
    owner.subscribe("c", outlet)
    assert owner.publish("c", "x") == (1, 0, 0)
    owner.flush()
    assert outlet.received == b"x"


def test_targets_follow_the_membership(owner: Owner, server: FakeServer) -> None:
    outlets = connect(owner, server, 3)
    owner.publish("c", "a")
    owner.flush()
    owner.hub.discard(outlets[1])
    owner.publish("c", "b")
    owner.flush()
    owner.subscribe("c", server.connect())
    owner.publish("c", "d")
    owner.flush()
    assert server.frames == [b"m2 5:1 2 3, a", b"m2 3:1 3, b", b"m2 5:1 3 4, d"]


def test_gone_before_the_flush_is_a_counted_drop(owner: Owner, server: FakeServer) -> None:
    outlets = connect(owner, server, 2)
    owner.publish("c", "a")
    owner.publish("c", "b")
    owner.hub.discard(outlets[0])
    owner.hub.discard(outlets[0])
    owner.flush()
    assert server.frames == [b"m2 1:2, ab"]
    assert owner.hub.stats().drops == {"gone": 2}


def test_one_connection_on_two_channels(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=4)
    owner.subscribe("a", outlet)
    owner.subscribe("b", outlet)
    for number in range(4):
        owner.publish("a", f"a{number}")
        owner.publish("b", f"b{number}")
        owner.flush()
    while outlet.unread:
        outlet.read()
        owner.flush()
    pairs = [outlet.received[at : at + 2] for at in range(0, len(outlet.received), 2)]
    assert [pair for pair in pairs if pair[:1] == b"a"] == [b"a0", b"a1", b"a2", b"a3"]
    assert [pair for pair in pairs if pair[:1] == b"b"] == [b"b0", b"b1", b"b2", b"b3"]
    assert outlet.on_room is None


def test_nothing_is_left_of_those_that_left(owner: Owner, server: FakeServer) -> None:
    outlets = connect(owner, server, 5)
    outlets += connect(owner, server, 5, "d")
    owner.publish("c", "x")
    for outlet in outlets:
        owner.hub.discard(outlet)
    owner.flush()
    assert owner.hub.stats().channels == {}
    assert owner.publish("c", "x") == (0, 0, 0)
    hub = owner.hub
    assert (hub._channels, hub._subscribers, hub._dirty) == ({}, {}, {})


# -- what is not read -------------------------------------------------------------------------------


def lag(owner: Owner, server: FakeServer, policy: Policy) -> FakeOutlet:
    """Return a subscriber of "c" whose window of 10 bytes is full."""
    owner.hub.configure("c", policy)
    outlet = server.connect(window=10)
    owner.subscribe("c", outlet)
    owner.publish("c", "0123456789")
    owner.flush()
    return outlet


def test_block_queues_to_its_limit_and_then_closes(owner: Owner, server: FakeServer) -> None:
    outlet = lag(owner, server, Policy("block", 20))
    other = server.connect()
    owner.subscribe("c", other)
    assert owner.publish("c", "a" * 10) == (2, 0, 0)
    assert not owner.flush().closed
    assert owner.publish("c", "b" * 10) == (2, 1, 0)
    assert not owner.flush().closed
    assert owner.publish("c", "c") == (2, 0, 1)
    closed = owner.flush().closed
    assert [one for one, _ in closed] == [outlet]
    assert closed[0][1] == "channel=c queued_bytes=20 limit_bytes=20"
    assert owner.hub.stats().drops == {"over-limit": 3}
    assert owner.publish("c", "d") == (1, 0, 0)
    owner.flush()
    assert other.received == b"a" * 10 + b"b" * 10 + b"cd"


def test_all_that_a_closed_client_loses_in_one_turn_is_counted(owner: Owner, server: FakeServer) -> None:
    owner.hub.configure("c", Policy("block", 20))
    outlet = server.connect(window=10)
    owner.subscribe("c", outlet)
    for _ in range(6):
        owner.publish("c", "x" * 11)
    assert [one for one, _ in owner.flush().closed] == [outlet]
    assert outlet.received == b""
    assert owner.hub.stats().drops == {"over-limit": 6}


def test_a_single_item_over_the_limit_is_taken(owner: Owner, server: FakeServer) -> None:
    outlet = lag(owner, server, Policy("block", 20))
    assert owner.publish("c", "x" * 500) == (1, 0, 0)
    assert not owner.flush().closed
    for _ in range(100):
        outlet.read()
        owner.flush()
    assert outlet.received == b"0123456789" + b"x" * 500


def test_drop_oldest_keeps_the_newest_up_to_its_limit(owner: Owner, server: FakeServer) -> None:
    outlet = lag(owner, server, Policy("drop-oldest", 20))
    for letter in "abcde":
        owner.publish("c", letter * 5)
        owner.flush()
    assert owner.hub.stats().channels["c"].queued_bytes == 20
    assert owner.hub.stats().drops == {"drop-oldest": 1}
    owner.publish("c", "f" * 11)
    owner.flush()
    assert owner.hub.stats().drops == {"drop-oldest": 4}
    for _ in range(10):
        outlet.read()
        owner.flush()
    assert outlet.received == b"0123456789" + b"eeeee" + b"f" * 11


def test_latest_keeps_one(owner: Owner, server: FakeServer) -> None:
    outlet = lag(owner, server, Policy("latest"))
    for letter in "abcde":
        owner.publish("c", letter)
    owner.flush()
    outlet.read()
    owner.flush()
    assert outlet.received == b"0123456789e"
    assert owner.hub.stats().drops == {"latest": 4}


@pytest.mark.parametrize("rule", ["block", "drop-oldest", "latest"])
def test_who_has_caught_up_is_back_in_its_group(owner: Owner, server: FakeServer, rule: Rule) -> None:
    outlet = lag(owner, server, Policy(rule))
    other = server.connect()
    owner.subscribe("c", other)
    owner.publish("c", "x")
    owner.flush()
    outlet.read()
    owner.flush()
    outlet.read()
    assert owner.hub.stats().channels["c"].lagging == 0
    assert outlet.on_room is None
    server.frames.clear()
    owner.publish("c", "y")
    owner.flush()
    assert server.frames == [b"m2 3:2 1, y"]


def test_a_policy_may_change_while_somebody_is_subscribed(owner: Owner, server: FakeServer) -> None:
    outlet = lag(owner, server, Policy("block"))
    owner.publish("c", "a")
    owner.publish("c", "b")
    owner.flush()
    owner.hub.configure("c", Policy("latest"))
    owner.publish("c", "d")
    owner.flush()
    outlet.read()
    owner.flush()
    assert outlet.received == b"0123456789d"


def test_what_the_connection_itself_queues_goes_first(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=10)
    outlet.post(b"0123456789abc")
    owner.subscribe("c", outlet)
    owner.publish("c", "x")
    owner.flush()
    assert outlet.received == b"0123456789"
    outlet.read()
    owner.flush()
    assert outlet.received == b"0123456789abcx"


def test_without_flow_control_the_connection_paces(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=None)
    owner.subscribe("c", outlet)
    for letter in "abc":
        owner.publish("c", letter)
        owner.flush()
    assert outlet.received == b""
    for _ in range(3):
        outlet.pace()
        owner.flush()
    assert outlet.received == b"abc"


def test_small_items_of_a_laggard_are_merged(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=1_000)
    owner.subscribe("c", outlet)
    owner.publish("c", "x" * 1_000)
    owner.flush()
    for _ in range(50):
        owner.publish("c", "y" * 10)
        owner.flush()
    posts = []
    outlet.read()
    work = owner.hub.flush(owner.now_s)
    posts += [data for _, data in work.posts]
    assert posts == [b"y" * 500]


def test_no_more_is_posted_than_credits_allow(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect()
    owner.subscribe("c", outlet)
    owner.publish("c", "x" * CREDITS_INITIAL)
    owner.flush()
    for _ in range(10):
        owner.publish("c", "y" * 6_000)
    owner.flush()
    outlet.read(30_000)
    assert [len(data) for _, data in owner.hub.flush(owner.now_s).posts] == [12_000, 12_000]
    assert owner.hub.stats().channels["c"].lagging == 1


# -- publishers that are faster than all -------------------------------------------------------------


def full(owner: Owner, server: FakeServer, count: int) -> list[FakeOutlet]:
    """Return subscribers of "c" that all lag."""
    outlets = [server.connect(window=10) for _ in range(count)]
    for outlet in outlets:
        owner.subscribe("c", outlet)
    for _ in range(2):
        owner.publish("c", "0123456789")
        owner.flush()
    return outlets


def test_congested_while_most_lag(owner: Owner, server: FakeServer) -> None:
    hub, now_s = owner.hub, owner.now_s
    assert not hub.is_congested("c", now_s)
    outlets = full(owner, server, 4)
    assert hub.is_congested("c", now_s)
    assert hub.laggard("c") in outlets
    outlets[0].read()
    owner.flush()
    assert hub.is_congested("c", now_s)
    outlets[1].read()
    owner.flush()
    assert not hub.is_congested("c", now_s)


def test_one_stalled_among_fast_ones_is_no_congestion(owner: Owner, server: FakeServer) -> None:
    full(owner, server, 1)
    owner.subscribe("c", server.connect())
    assert not owner.hub.is_congested("c", owner.now_s)


def test_publishers_do_not_wait_for_those_that_make_no_progress(owner: Owner, server: FakeServer) -> None:
    outlets = full(owner, server, 3)
    assert owner.hub.is_congested("c", owner.now_s + STALL_S - 0.01)
    assert not owner.hub.is_congested("c", owner.now_s + STALL_S)
    # One that reads again counts again.
    owner.now_s += 5.0
    owner.publish("c", "0123456789")
    outlets[0].read()
    owner.flush()
    owner.publish("c", "0123456789")
    owner.flush()
    assert owner.hub.is_congested("c", owner.now_s)
    owner.hub.discard(outlets[0])
    assert not owner.hub.is_congested("c", owner.now_s)


def test_the_stalled_are_forgotten_when_they_leave(owner: Owner, server: FakeServer) -> None:
    stalled = full(owner, server, 3)
    assert not owner.hub.is_congested("c", owner.now_s + STALL_S)
    owner.now_s += STALL_S
    full(owner, server, 1)
    for outlet in stalled:
        owner.hub.discard(outlet)
    assert owner.hub.is_congested("c", owner.now_s)


@pytest.mark.parametrize(("rule", "drops"), [("block", False), ("drop-oldest", True), ("latest", True)])
def test_which_channels_drop(owner: Owner, rule: Rule, drops: bool) -> None:
    owner.hub.configure("c", Policy(rule))
    assert owner.hub.drops("c") is drops
    assert not owner.hub.drops("another")


# -- response holds -----------------------------------------------------------------------------------


def test_the_first_item_answers_and_releases(owner: Owner, server: FakeServer) -> None:
    form = ResponseForm((), close=False, body_less=False)
    held = [server.connect() for _ in range(3)]
    for outlet in held:
        owner.subscribe("a", outlet, form)
        owner.subscribe("b", outlet, form)
    stream = server.connect()
    owner.subscribe("a", stream)
    assert owner.publish("a", "x") == (4, 0, 0)
    assert owner.publish("a", "y") == (1, 0, 0)
    assert owner.publish("b", "z") == (0, 0, 0)
    work = owner.flush()
    assert [outlet for outlet, _ in work.answered] == held
    assert {data for _, data in work.answered} == {held[0].received}
    assert all(outlet.received.endswith(b"\r\n\r\nx") for outlet in held)
    assert stream.received == b"xy"
    assert len(server.frames) == 2


def test_an_answer_reaches_a_client_without_credits(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(window=10)
    owner.subscribe("a", outlet, ResponseForm((), close=False, body_less=False))
    owner.publish("a", "x")
    assert [one for one, _ in owner.flush().answered] == [outlet]
    while outlet.unread:
        outlet.read()
    assert outlet.received.endswith(b"\r\n\r\nx")


# -- signs of life and figures -----------------------------------------------------------------------


def test_touch_reaches_those_with_credits_only(owner: Owner, server: FakeServer) -> None:
    outlets = [server.connect() for _ in range(130)] + [server.connect(window=2)]
    outlets[0].outstanding = CREDITS_INITIAL - 4
    owner.hub.touch([(outlet, b": \n\n") for outlet in outlets])
    assert owner.wakes > 0
    owner.flush()
    assert [outlet.received for outlet in outlets] == [b": \n\n"] * 130 + [b""]
    assert len(server.frames) == 2
    assert [outlets[0].outstanding, outlets[1].outstanding] == [CREDITS_INITIAL, 4]


def test_stats(owner: Owner, server: FakeServer) -> None:
    full(owner, server, 2)
    connect(owner, server, 3, "d")
    owner.publish("nobody", "x")
    stats = owner.hub.stats()
    assert (stats.published, stats.matched, stats.drops) == (3, 4, {})
    assert stats.channels["c"].subscribers == 2
    assert stats.channels["c"].lagging == 2
    assert stats.channels["c"].queued_bytes == 20
    assert stats.channels["d"].subscribers == 3
    assert "nobody" not in stats.channels
    assert [one.published for one in stats.channels.values()] == [0, 2]  # the most subscribers first
    totals = (stats.channels_total, stats.subscribers_total, stats.lagging_total, stats.queued_bytes_total)
    assert totals == (2, 5, 2, 20)
    few = owner.hub.stats(1)
    assert list(few.channels) == ["d"]
    assert (few.channels_total, few.subscribers_total) == (2, 5)


def test_hub_keeps_time_only_as_told() -> None:
    hub = Hub(lambda: None)
    assert hub.flush(0.0) == hub.flush(1e9)


# -- which channels there are -----------------------------------------------------------------------


def test_the_first_and_the_last_subscriber_of_a_channel_are_heard_of(owner: Owner, server: FakeServer) -> None:
    heard: list[str] = []
    owner.hub.on_opened = lambda channel: heard.append(f"+{channel}")
    owner.hub.on_emptied = lambda channel: heard.append(f"-{channel}")
    one, other = connect(owner, server, 2)
    owner.subscribe("d", one)
    assert owner.hub.names() == ["c", "d"]
    owner.hub.discard(one)
    owner.hub.release(other, owner.now_s)
    owner.hub.release(other, owner.now_s)
    assert heard == ["+c", "+d", "-d", "-c"]
    assert owner.hub.names() == []


def test_the_usual_policy_takes_no_memory(owner: Owner, server: FakeServer) -> None:
    connect(owner, server, 1)
    owner.hub.configure("c", Policy("latest", 5))
    assert owner.hub.drops("c")
    owner.hub.configure("c", Policy())
    assert not owner.hub.drops("c")
    assert owner.hub._policies == {}


def test_without_flow_control_only_what_waits_slows_publishers(owner: Owner, server: FakeServer) -> None:
    outlet = server.connect(None)
    owner.subscribe("c", outlet)
    assert not owner.hub.is_congested("c", owner.now_s)
    owner.publish("c", "x")
    assert owner.hub.is_congested("c", owner.now_s)
    owner.flush()
    assert owner.hub.is_congested("c", owner.now_s)  # the connection has it still
    outlet.pace()
    assert not owner.hub.is_congested("c", owner.now_s)
    assert outlet.received == b"x"
