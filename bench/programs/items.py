"""What is broadcast: items of 100 bytes, each with one mark that the reader counts."""

from typing import Final

MARK: Final = b"!"
ITEM: Final = b"." * 99 + MARK
CHUNK: Final = b"%x\r\n%s\r\n" % (len(ITEM), ITEM)
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
)
