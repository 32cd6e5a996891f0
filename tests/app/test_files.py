"""Response.file: ranges, conditions, and that nothing stays open."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from m2gate import App, Request, Response, TestClient

DATA: Final = bytes(range(256)) * 400
CHANGED: Final = 1_700_000_000
DATE: Final = "Tue, 14 Nov 2023 22:13:20 GMT"
LATER: Final = "Wed, 15 Nov 2023 00:00:00 GMT"
EARLIER: Final = "Mon, 13 Nov 2023 00:00:00 GMT"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.bin").write_bytes(DATA)
    (tmp_path / "page.html").write_text("<p>ä")
    (tmp_path / "pack.tar.gz").write_bytes(b"z")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.utime(tmp_path / "data.bin", (CHANGED, CHANGED))
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    app = App()

    @app.route("/{name}", methods=["GET", "POST"])
    def file(request: Request, name: str) -> Response:
        return Response.file(folder / name)

    app.get("/odd/status")(lambda request: (Response.file(folder / "data.bin"), 404))
    app.get("/odd/type")(lambda request: Response.file(folder / "data.bin", content_type="text/x"))
    app.get("/odd/nul")(lambda request: Response.file("a\0b"))
    app.get("/odd/long")(lambda request: Response.file("a" * 5_000))
    with TestClient(app) as client:
        yield client
    assert open_files(folder) == []


def open_files(folder: Path) -> list[str]:
    """Return the files of folder that this process has open."""
    names = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    return [name for name in names if name.startswith(str(folder))]


def test_whole_file(client: TestClient) -> None:
    got = client.get("/data.bin")
    assert (got.status, got.body) == (200, DATA)
    assert got.headers["Content-Length"] == str(len(DATA))
    assert got.headers["Last-Modified"] == DATE
    assert got.headers["Accept-Ranges"] == "bytes"
    assert re.fullmatch('"[0-9a-f]+-[0-9a-f]+"', got.headers["ETag"])


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("page.html", "text/html; charset=utf-8"),
        ("data.bin", "application/octet-stream"),
        ("pack.tar.gz", "application/gzip"),
        ("empty", "application/octet-stream"),
    ],
)
def test_content_type(client: TestClient, name: str, content_type: str) -> None:
    assert client.get(f"/{name}").headers["Content-Type"] == content_type


def test_content_type_and_status_of_ones_own(client: TestClient) -> None:
    assert client.get("/odd/type").headers["Content-Type"] == "text/x"
    got = client.get("/odd/status", headers={"Range": "bytes=0-1", "If-None-Match": "*"})
    assert (got.status, got.body) == (404, DATA)


@pytest.mark.parametrize("path", ["/missing", "/folder", "/pipe", "/odd/nul", "/odd/long"])
def test_what_is_no_file_is_404(client: TestClient, path: str) -> None:
    assert client.get(path).status == 404


@pytest.fixture
def shelf(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Files below a root; outside of it lies a secret, and a link in the root leads there."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_text("secret")
    (folder / "link").symlink_to(outside / "secret")
    (folder / "folder" / "deep.txt").write_text("deep")
    (folder / "inside").symlink_to(folder / "folder" / "deep.txt")
    (folder.parent / f"{folder.name}-twin").mkdir()
    (folder.parent / f"{folder.name}-twin" / "x").write_text("twin")
    app = App()
    app.get("/{name:path}")(lambda request, name: Response.file(name, root=folder))
    app.get("/twin")(lambda request: Response.file(f"../{folder.name}-twin/x", root=folder))
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/folder/deep.txt", "/folder/../folder/deep.txt", "/folder//deep.txt", "/inside"])
def test_below_the_root(shelf: TestClient, path: str) -> None:
    assert shelf.get(path).text == "deep"


@pytest.mark.parametrize(
    "path",
    ["/../secret", "/..%2Fsecret", "//etc/passwd", "/%2Fetc%2Fpasswd", "/link", "/folder", "/", "/missing", "/twin"],
)
def test_outside_of_the_root_is_404(shelf: TestClient, path: str) -> None:
    assert shelf.get(path).status == 404


def test_head(client: TestClient) -> None:
    got = client.head("/data.bin", headers={"Range": "bytes=0-1"})
    assert (got.status, got.body, got.headers["Content-Length"]) == (200, b"", str(len(DATA)))


SINGLE = [
    ("bytes=0-0", 0, 1),
    ("bytes=10-19", 10, 20),
    ("bytes=100000-", 100_000, len(DATA)),
    ("bytes=-5", len(DATA) - 5, len(DATA)),
    ("bytes=-999999", 0, len(DATA)),
    ("bytes=102399-999999", 102_399, len(DATA)),
    ("bytes=5-5, 999999-", 5, 6),
]


@pytest.mark.parametrize(("header", "start", "stop"), SINGLE, ids=[header for header, _, _ in SINGLE])
def test_one_range(client: TestClient, header: str, start: int, stop: int) -> None:
    got = client.get("/data.bin", headers={"Range": header})
    assert (got.status, got.body) == (206, DATA[start:stop])
    assert got.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert got.headers["Content-Length"] == str(stop - start)


def test_several_ranges(client: TestClient) -> None:
    got = client.get("/data.bin", headers={"Range": "bytes=0-3, 100-40099, -2"})
    assert got.status == 206
    found = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]{32})", got.headers["Content-Type"])
    assert found is not None
    expected = b""
    for start, stop in ((0, 4), (100, 40_100), (len(DATA) - 2, len(DATA))):
        head = f"\r\n--{found[1]}\r\nContent-Type: application/octet-stream\r\n"
        expected += f"{head}Content-Range: bytes {start}-{stop - 1}/{len(DATA)}\r\n\r\n".encode() + DATA[start:stop]
    assert got.body == expected + f"\r\n--{found[1]}--\r\n".encode()
    assert got.headers["Content-Length"] == str(len(got.body))


@pytest.mark.parametrize("header", ["bytes=102400-", "bytes=999999-1000000", "bytes=102400-102401, 999999-"])
def test_a_range_behind_the_end_is_416(client: TestClient, header: str) -> None:
    got = client.get("/data.bin", headers={"Range": header})
    assert (got.status, got.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")


WHOLE = [
    "bytes=",
    "bytes=x-y",
    "bytes=5-2",
    "lines=1-2",
    "bytes=0-9, 5-20",
    "0-5",
    "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 40, 2)),
]


@pytest.mark.parametrize("header", WHOLE)
def test_a_range_that_is_none_gets_the_whole_file(client: TestClient, header: str) -> None:
    got = client.get("/data.bin", headers={"Range": header})
    assert (got.status, got.body) == (200, DATA)


def test_an_empty_file_has_no_ranges(client: TestClient) -> None:
    got = client.get("/empty", headers={"Range": "bytes=0-"})
    assert (got.status, got.body, got.headers["Content-Length"]) == (200, b"", "0")


def test_post_has_no_ranges_and_no_conditions(client: TestClient) -> None:
    got = client.post("/data.bin", headers={"Range": "bytes=0-1", "If-None-Match": "*"})
    assert (got.status, got.body) == (200, DATA)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": "ETAG"}, 304),
        ({"If-None-Match": '"other", ETAG'}, 304),
        ({"If-None-Match": "W/ETAG"}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": LATER}, 200),
        ({"If-Modified-Since": DATE}, 304),
        ({"If-Modified-Since": LATER}, 304),
        ({"If-Modified-Since": EARLIER}, 200),
        ({"If-Modified-Since": "rubbish"}, 200),
        ({"If-Range": "ETAG", "Range": "bytes=0-1"}, 206),
        ({"If-Range": '"other"', "Range": "bytes=0-1"}, 200),
        ({"If-Range": DATE, "Range": "bytes=0-1"}, 206),
        ({"If-Range": LATER, "Range": "bytes=0-1"}, 200),
    ],
    ids=str,
)
def test_conditions(client: TestClient, headers: dict[str, str], status: int) -> None:
    etag = client.head("/data.bin").headers["ETag"]
    got = client.get("/data.bin", headers={name: value.replace("ETAG", etag) for name, value in headers.items()})
    assert got.status == status
    assert got.body == {200: DATA, 206: DATA[:2], 304: b""}[status]
    assert got.headers["ETag"] == etag


def test_the_etag_changes_with_the_file(client: TestClient, folder: Path) -> None:
    before = client.head("/data.bin").headers["ETag"]
    (folder / "data.bin").write_bytes(DATA + b"x")
    assert client.head("/data.bin").headers["ETag"] != before


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(client: TestClient, folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * 1_000_000)
    with client.stream("GET", "/large") as stream:
        stream.read(1)
        os.truncate(folder / "large", 200_000)
        with pytest.raises(EOFError):
            stream.read()


def test_a_client_that_leaves_closes_the_file(client: TestClient, folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * 1_000_000)
    with client.stream("GET", "/large") as stream:
        assert stream.read(10) == b"x" * 10  # the fixture counts what is still open
