"""``m2gate publish`` as a shell sees it: what is sent, what is printed, and each mistake in one line."""

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import zmq
from click.testing import CliRunner, Result

from m2gate.cli import commands
from m2gate.cli import main as run_command
from m2gate.errors import ConfigError
from tests.system.processes import free_port, short_directory


class Input:
    """An HTTP input with 12 subscribers, or one that answers as the test says."""

    def __init__(self) -> None:
        self.status, self.answer = 200, b'{"receipt": [{"matched": 12}]}'
        self.items: list[dict[str, Any]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner.items += json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
                self.send_response(owner.status)
                self.send_header("Content-Length", str(len(owner.answer)))
                self.end_headers()
                self.wfile.write(owner.answer)

            def log_message(self, *_: object) -> None:
                """Keep silent."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def publish(self, *args: str, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(commands, ["publish", *args, "--to", self.url], input=stdin)


@pytest.fixture(scope="module")
def http_input() -> Iterator[Input]:
    one = Input()
    thread = threading.Thread(target=one.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield one
    one.server.shutdown()
    thread.join()
    one.server.server_close()


def own(**content: Any) -> dict[str, Any]:
    return {"channel": "news", "formats": {"m2gate": content}}


def response(**fields: Any) -> dict[str, Any]:
    return {"channel": "news", "formats": {"http-response": {"code": 200, "headers": [], **fields}}}


SENT = [
    pytest.param(["hello"], b"", own(content="hello"), id="text"),
    pytest.param([""], b"", own(content=""), id="empty"),
    pytest.param(["-"], b"from stdin\n", own(content="from stdin\n"), id="dash"),
    pytest.param([], b"from stdin", own(content="from stdin"), id="stdin"),
    pytest.param(["\udcff"], b"", own(**{"content-bin": "/w=="}), id="binary"),
    pytest.param(["-"], b"\xff\0", own(**{"content-bin": "/wA="}), id="binary-stdin"),
    pytest.param(["é"], b"", own(content="é"), id="utf-8"),
    pytest.param(["x", "--event", "e", "--id", "2", "--prev-id", "1"], b"",
                 {**own(content="x", event="e"), "id": "2", "prev-id": "1"}, id="names"),
    pytest.param(["x", "--format", "sse", "--event", "e"], b"", own(content="x", event="e"), id="sse"),
    pytest.param(['{"n": [1, null]}', "--format", "json"], b"", own(json={"n": [1, None]}), id="json"),
    pytest.param(["[1]", "--format", "json"], b"", own(json=[1]), id="json-list"),
    pytest.param(["5", "--format", "json"], b"", own(content="5"), id="json-number"),
    pytest.param(["-", "--format", "json"], b'"\xc3\xa9"', own(content='"\\u00e9"'), id="json-text"),
    pytest.param(["x", "--format", "http-stream"], b"",
                 {"channel": "news", "formats": {"http-stream": {"content-bin": "eA=="}}}, id="stream"),
    pytest.param(["x", "--format", "ws-message"], b"",
                 {"channel": "news", "formats": {"ws-message": {"content": "x"}}}, id="message"),
    pytest.param(["-", "--format", "ws-message"], b"\xff",
                 {"channel": "news", "formats": {"ws-message": {"content-bin": "/w=="}}}, id="message-binary"),
    pytest.param(["x", "--format", "http-response"], b"", response(**{"body-bin": "eA=="}), id="response"),
    pytest.param(["x", "--format", "http-response", "--code", "404", "-H", "X-A: b:c", "--header", "X-B:"], b"",
                 response(code=404, headers=[["X-A", "b:c"], ["X-B", ""]], **{"body-bin": "eA=="}), id="whole"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "stdin", "item"), SENT)
def test_what_is_sent(http_input: Input, args: list[str], stdin: bytes, item: dict[str, Any]) -> None:
    http_input.items.clear()
    done = http_input.publish("news", *args, stdin=stdin)
    assert (done.exit_code, done.output) == (0, "12\n")
    assert http_input.items == [item]


@pytest.mark.parametrize("kind", ["http-stream", "http-response"])
def test_bytes_arrive_as_they_are(http_input: Input, kind: str) -> None:
    http_input.items.clear()
    http_input.publish("news", "-", "--format", kind, stdin=b"\xff\0\r\n")
    (sent,) = http_input.items[0]["formats"].values()
    assert b64decode(sent.get("content-bin") or sent["body-bin"]) == b"\xff\0\r\n"


def test_nobody_listens_is_no_failure(http_input: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_input, "answer", b'{"receipt": [{"matched": 0}]}')
    done = http_input.publish("nobody", "x")
    assert (done.exit_code, done.output) == (0, "0\n")


def test_the_environment_says_where_to(http_input: Input) -> None:
    http_input.items.clear()
    done = CliRunner().invoke(commands, ["publish", "news", "x"], env={"M2GATE_PUBLISH": http_input.url})
    assert (done.exit_code, done.output) == (0, "12\n")


def test_over_zeromq_nobody_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with short_directory() as folder:
        pull = context.socket(zmq.PULL)
        pull.bind(f"ipc://{folder}/items")
        assert call(monkeypatch, "news", "x", "--to", f"ipc://{folder}/items") == 0
        assert capsys.readouterr() == ("", f"m2gate: sent to ipc://{folder}/items, which does not tell who got it\n")
        assert pull.poll(10_000)
        assert json.loads(pull.recv()[1:]) == own(content="x")
        context.destroy(linger=0)


DEEP = "[" * 100_000
MISTAKES = [
    pytest.param([], "Missing argument 'CHANNEL'", id="nothing"),
    pytest.param(["news", "x", "y"], "unexpected extra argument", id="too-much"),
    pytest.param(["news", "x", "--format", "xml"], "'xml' is not one of 'http-stream'", id="format"),
    pytest.param(["news", "{", "--format", "json"], "DATA is no JSON: ", id="json"),
    pytest.param(["news", DEEP, "--format", "json"], "DATA is no JSON: ", id="deep-json"),
    pytest.param(["news", "[NaN]", "--format", "json"], "not JSON compliant", id="nan"),
    pytest.param(["news", "x", "--code", "404"], "--code and --header need --format http-response", id="code"),
    pytest.param(["news", "x", "-H", "A: b", "--format", "sse"], "--code and --header need", id="header"),
    pytest.param(["news", "x", "--format", "http-response", "--code", "99"], "99 is not in the range", id="code-range"),
    pytest.param(["news", "x", "--format", "http-response", "-H", "A"], "--header 'A': write NAME: VALUE", id="colon"),
    pytest.param(["news", "x", "--format", "http-response", "-H", ": b"], "write NAME: VALUE", id="no-name"),
    pytest.param(["news", "x", "--format", "http-response", "-H", "A B: c"], "header name 'A B'", id="bad-name"),
    pytest.param(["news", "x", "--format", "http-response", "-H", "A: b\nC: d"], "header 'A'", id="two-lines"),
    pytest.param(["news", "x", "--event", "a\nb"], "must not have a line end", id="event"),
    pytest.param(["news", "x", "--to", "nowhere"], "url = 'nowhere': no address that can be published to", id="to"),
]


@pytest.mark.parametrize(("args", "text"), MISTAKES)
def test_a_mistake_is_one_line_and_status_2(
    http_input: Input,
    args: list[str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    http_input.items.clear()
    monkeypatch.setenv("M2GATE_PUBLISH", http_input.url)
    assert call(monkeypatch, *args) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("m2gate: ")
    assert text in printed.err
    assert printed.err.count("\n") == 1
    assert http_input.items == []


def call(monkeypatch: pytest.MonkeyPatch, *args: str) -> object:
    """Run the command in this process; return its exit status."""
    monkeypatch.setattr("sys.argv", ["m2gate", "publish", *args])
    with pytest.raises(SystemExit) as ended:
        run_command()
    return ended.value.code


NO_RECEIPT = "URL: no receipt in the answer; is it a publish input of m2gate?"
ANSWERS = [
    pytest.param((400, b"Invalid format: no\n"), 2, "Invalid format: no; see m2gate publish --help", id="400"),
    pytest.param((503, b"too many wait\n"), 1, "URL: 503: too many wait", id="503"),
    pytest.param((200, b"hello"), 1, NO_RECEIPT, id="other-program"),
]


@pytest.mark.parametrize(("answer", "code", "text"), ANSWERS)
def test_what_the_input_answers(
    http_input: Input,
    answer: tuple[int, bytes],
    code: int,
    text: str,
    *,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(http_input, "status", answer[0])
    monkeypatch.setattr(http_input, "answer", answer[1])
    assert call(monkeypatch, "news", "x", "--to", http_input.url) == code
    assert capsys.readouterr() == ("", f"m2gate: {text.replace('URL', http_input.url)}\n")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert call(monkeypatch, "news", "x", "--to", url) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"m2gate: {url}: nobody takes items there: ")
    assert printed.err.count("\n") == 1


def test_a_terminal_is_not_read_unasked(http_input: Input, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("m2gate.cli.publish.sys.stdin", Terminal())
    assert call(monkeypatch, "news", "--to", http_input.url) == 2


def test_a_bad_address_in_the_environment_is_named() -> None:
    done = CliRunner().invoke(commands, ["publish", "news", "x"], env={"M2GATE_PUBLISH": "nowhere"})
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("M2GATE_PUBLISH = 'nowhere': ")
