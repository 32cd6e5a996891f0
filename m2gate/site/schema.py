"""The keys of the files that administrators write, each with what it is for; the reference pages are made from it."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. kind: what its value is. default: as it is written in the file, or in words; "" if it must be there."""

    name: str
    kind: str
    default: str
    text: str


SITE: Final = (
    Key(
        name="hosts",
        kind="list of names",
        default="[], any name",
        text="Names that the site answers to, in lower case; `*.shop.example` stands for one level below. They are"
        " compared as a whole: `evilshop.example` is another name. What no site has gets 421.",
    ),
    Key(
        name="listen",
        kind="list of addresses",
        default="",
        text="`ADDRESS:PORT`, with `tls` behind it for https; IPv6 in brackets, as in `[::]:443 tls`. Sites that name"
        " the same address share one Mongrel2 there.",
    ),
    Key(
        name="redirect",
        kind='"https"',
        default="none",
        text="Clients that come by plain http are sent to the first address with tls (308, the path stays).",
    ),
    Key(name="handler", kind="tables", default="none", text="`[handler.NAME]`, see below."),
    Key(name="route", kind="list of tables", default="", text="`[[route]]`, see below."),
)
HANDLER: Final = (
    Key(
        name="target",
        kind="text",
        default="",
        text="The App, as `m2gate run` takes it: `/srv/shop/app.py`, `/srv/shop/app.py:app` or `shop.web:app`. Files"
        " are named from the root.",
    ),
    Key(name="workers", kind="1 to 256", default="1", text="Processes."),
    Key(
        name="drain_timeout",
        kind="seconds",
        default="30",
        text="For what is open in a worker that is replaced or stopped; 0 to 86,400.",
    ),
    Key(
        name="max_requests",
        kind="number",
        default="never",
        text="After so many requests a fresh process takes over from a worker.",
    ),
)
ROUTE: Final = (
    Key(
        name="path",
        kind="text",
        default="",
        text="`/api/` stands for all below it, `/api` for itself and all below. The longest one counts.",
    ),
    Key(name="handler", kind="name", default="one of the three", text="The handler section that answers."),
    Key(
        name="dir",
        kind="folder",
        default="one of the three",
        text="A folder that Mongrel2 serves by itself, from the root and with `/` at its end; path ends in `/`, too.",
    ),
    Key(
        name="grip",
        kind="list of URLs",
        default="one of the three",
        text="Not there yet in this version: it will pass requests to an application by HTTP.",
    ),
)
GATEWAY: Final = (
    Key(name="publish_http", kind="ADDR:PORT", default="none", text="Items for channels by HTTP POST."),
    Key(name="publish_pull", kind="ZeroMQ address", default="none", text="Items by ZeroMQ PUSH."),
    Key(name="publish_sub", kind="ZeroMQ address", default="none", text="Items by ZeroMQ PUB that names channels."),
    Key(name="metrics", kind="ADDR:PORT", default="none", text="Where Prometheus may ask, at `/metrics`."),
    Key(name="access_log", kind="- or a file", default="none", text="One line a request; `-` is stderr, the journal."),
    Key(name="queue_max", kind="number", default="10000", text="Requests that wait for one handler; more get 503."),
    Key(name="drain_timeout", kind="seconds", default="30", text="For what is open when the gateway is stopped."),
    Key(name="keepalive", kind="seconds", default="45", text="Between keep-alives of connections that are held."),
)


def names(keys: tuple[Key, ...]) -> tuple[str, ...]:
    """Return the names of keys."""
    return tuple(key.name for key in keys)
