"""What ``m2gate status`` shows: one text from the status document and what the supervisor knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from m2gate.cli.table import (
    Cell,
    Column,
    Style,
    build_table,
    duration,
    number,
    paint,
    printable,
    rate,
    shorten,
    size,
    wrap,
)
from m2gate.inputs.document import StatusDocument, WorkerStatus

INDENT: Final = 11  # of what stands behind the labels
CHANNELS_SHOWN: Final = 20  # without a screen to fit on
TABLE_MIN: Final = 3  # lines: a heading, a row, and how many more there are
BLANKS: Final = 4  # lines between the five parts
BEAT_LATE_S: Final = 2.0  # a heart beats every second
DEATHS: Final = {"exit": "workers died", "hung": "workers hung"}
STATES: Final[dict[str, Style]] = {"ready": "green", "starting": "yellow", "leaving": "yellow", "lost": "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is known at one moment.

    document:   None if the process did not answer; error says why then.
    supervisor: what ``m2gate run`` wrote; None where there is no supervisor.
    taken_s:    monotonic time of the answer.
    """

    document: StatusDocument | None
    supervisor: Mapping[str, Any] | None
    error: str = ""
    taken_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Events a second between two snapshots; None for what only one of them knows."""

    finished: float | None = None
    published: float | None = None
    deliveries: float | None = None
    served: Mapping[tuple[str, int], float] = field(default_factory=dict)  # by name and pid

    @classmethod
    def between(cls, before: Snapshot | None, now: Snapshot) -> "Rates":
        """Return the rates since the snapshot before. A process that was replaced meanwhile begins anew."""
        if before is None or before.document is None or now.document is None:
            return cls()
        old, new, passed_s = before.document, now.document, now.taken_s - before.taken_s
        if old["pid"] != new["pid"] or passed_s <= 0:
            return cls()
        first, last = old["counters"], new["counters"]
        served = {(one["name"], one["pid"]): one["served"] for one in old["workers"]}
        return cls(
            finished=(last["requests_finished"] - first["requests_finished"]) / passed_s,
            published=(last["items_published"] - first["items_published"]) / passed_s,
            deliveries=(last["deliveries"] - first["deliveries"]) / passed_s,
            served={
                key: (one["served"] - served[key]) / passed_s
                for one in new["workers"]
                if (key := (one["name"], one["pid"])) in served
            },
        )


class View:
    """Renders snapshots for a terminal of so many columns; with rates if it is watched."""

    def __init__(self, columns: int, *, colour: bool, rows: int | None = None, watched: bool = False) -> None:
        self._columns = columns
        self._colour = colour
        self._rows = rows
        self._watched = watched

    def render(self, now: Snapshot, rates: Rates) -> list[str]:
        """Return the lines of one snapshot; at most as many as the terminal has rows."""
        head = self._title(now)
        document = now.document
        if document is None:
            lines = [*head, self._paint(shorten(printable(now.error), self._columns), "red")]
            lines += self._supervisor(now.supervisor) + self._supervised_workers(now.supervisor)
            return lines[: self._rows]
        top = [*head, *self._requests(document, rates)]
        bottom = [*self._publishing(document, rates), *self._trouble(document), *self._supervisor(now.supervisor)]
        return self._fit(document, rates, top, bottom)

    def _fit(self, document: StatusDocument, rates: Rates, top: list[str], bottom: list[str]) -> list[str]:
        """Put the parts below each other; where rows are missing channels give way first, then blanks and workers."""
        servers, workers, channels = self._servers(document), self._workers(document, rates), self._channels(document)
        channels_total = document["channels_total"] + 1  # with the heading
        if self._rows is None:
            channels = self._cut(channels, CHANNELS_SHOWN + 1, channels_total)
            return _join([top, servers, workers, channels, bottom], BLANKS)
        left = self._rows - len(top) - len(servers) - len(workers) - len(bottom)
        if left < 0:
            servers = self._cut(servers, TABLE_MIN, len(servers))
            workers_most = self._rows - len(top) - len(servers) - len(bottom)
            workers = self._cut(workers, max(workers_most, TABLE_MIN), len(workers))
        channels = self._cut(channels, left - BLANKS, channels_total) if left - BLANKS >= TABLE_MIN else []
        return _join([top, servers, workers, channels, bottom], left - len(channels))[: self._rows]

    def _cut(self, table: list[str], lines: int, total: int) -> list[str]:
        """Return at most so many lines of a table that has total of them, the last of which says what is missing."""
        if not table or total <= min(lines, len(table)):
            return table
        kept = table[: lines - 1]
        return [*kept, self._paint(f"and {number(total - len(kept))} more", "dim")]

    def _paint(self, text: str, style: Style) -> str:
        return paint(text, style, colour=self._colour)

    def _wrap(self, label: str, *parts: str, style: Style = "") -> list[str]:
        lines = wrap(label, [printable(part) for part in parts], self._columns, INDENT)
        return [self._paint(line, style) for line in lines]

    def footer(self) -> str:
        """Return the last line of a live view."""
        return self._paint(shorten("q ends", self._columns), "dim")

    # -- the parts --------------------------------------------------------------------------------

    def _title(self, now: Snapshot) -> list[str]:
        supervisor, document = now.supervisor or {}, now.document
        words = ["m2gate" if document is None else f"m2gate {document['version']}"]
        if document is not None:
            words += [document["role"], f"pid {document['pid']}", f"up {duration(document['uptime_s'])}"]
        words += [str(supervisor[key]) for key in ("url", "target") if supervisor.get(key)]
        return [self._paint(shorten(printable("  ".join(words)), self._columns), "bold")]

    def _requests(self, document: StatusDocument, rates: Rates) -> list[str]:
        counters, queue = document["counters"], document["queue"]
        failed = counters["requests_failed"]
        total = sum(failed.values())
        is_open = counters["requests_started"] - counters["requests_finished"] - total
        parts = [
            f"{number(counters['requests_started'])} started",
            f"{number(counters['requests_finished'])} finished",
            f"{number(total)} failed",
            f"{number(is_open)} open",
        ]
        if self._watched:
            parts.append(f"{rate(rates.finished)} req/s")
        lines = self._wrap("requests", *parts)
        if total:
            lines += self._wrap("failed", *_reasons(failed), style="yellow")
        waiting = f"{number(queue['waiting'])} of {number(queue['max'])} waiting"
        style: Style = "red" if queue["waiting"] >= queue["max"] else "yellow" if queue["waiting"] else ""
        return lines + self._wrap("queue", waiting, size(queue["bytes"]), style=style)

    def _servers(self, document: StatusDocument) -> list[str]:
        columns = [
            Column(title="SERVER", is_name=True),
            Column(title="LINK", is_name=True),
            Column(title="SESSIONS"),
            Column(title="HELD"),
            Column(title="REQUESTS"),
            Column(title="MESSAGES", priority=2),
            Column(title="REJECTED", priority=1),
        ]
        rows = [
            [
                Cell(printable(one["send_ident"])),
                Cell("up", "green") if one["connected"] else Cell("down", "red"),
                Cell(number(one["sessions"])),
                Cell(number(one["held"])),
                Cell(number(one["requests"])),
                Cell("-" if one["frames_in"] is None else number(one["frames_in"])),
                _alarm(one["rejected"]),
            ]
            for one in document["servers"]
        ]
        return build_table(columns, rows, self._columns, colour=self._colour)

    def _workers(self, document: StatusDocument, rates: Rates) -> list[str]:
        columns = [
            Column(title="WORKER", is_name=True),
            Column(title="PID", priority=1),
            Column(title="GEN", priority=2),
            Column(title="STATE", is_name=True),
            Column(title="OPEN"),
            Column(title="SERVED"),
            Column(title="FAILED", priority=3),
            *([Column(title="REQ/S")] if self._watched else []),
            Column(title="BEAT", priority=4),
            Column(title="UP", priority=5),
            Column(title="CAPACITY", priority=6),
        ]
        rows = [self._worker(one, rates) for one in document["workers"]]
        if not rows:
            return [self._paint("no worker is attached", "red")]
        return build_table(columns, rows, self._columns, colour=self._colour)

    def _worker(self, one: WorkerStatus, rates: Rates) -> list[Cell]:
        beat = one["beat_age_s"]
        is_full = one["outstanding"] >= one["capacity"]
        return [
            Cell(printable(f"{one['handler']}/{one['name']}" if one["handler"] else one["name"])),
            Cell(str(one["pid"])),
            Cell(str(one["generation"])),
            Cell(printable(one["state"]), STATES.get(one["state"], "")),
            Cell(number(one["outstanding"]), "red" if is_full else ""),
            Cell(number(one["served"])),
            _alarm(one["failed"]),
            *([Cell(rate(rates.served.get((one["name"], one["pid"]))))] if self._watched else []),
            Cell("-") if beat is None else Cell(f"{beat:.1f} s", "red" if beat > BEAT_LATE_S else ""),
            Cell(duration(one["uptime_s"])),
            Cell(number(one["capacity"])),
        ]

    def _channels(self, document: StatusDocument) -> list[str]:
        if not document["channels"]:
            return []
        columns = [
            Column(title="CHANNEL", is_name=True),
            Column(title="SUBSCRIBERS"),
            Column(title="LAGGING"),
            Column(title="QUEUED"),
            Column(title="PUBLISHED", priority=1),
        ]
        rows = [
            [
                Cell(printable(one["name"])),
                Cell(number(one["subscribers"])),
                _alarm(one["lagging"]),
                Cell(size(one["queued_bytes"])),
                Cell(number(one["published"])),
            ]
            for one in document["channels"]
        ]
        return build_table(columns, rows, self._columns, colour=self._colour)

    def _publishing(self, document: StatusDocument, rates: Rates) -> list[str]:
        counters = document["counters"]
        parts = [
            f"{number(document['channels_total'])} in use",
            f"{number(document['subscribers_total'])} subscribed",
            f"{number(counters['items_published'])} published",
            f"{number(counters['deliveries'])} delivered",
        ]
        if self._watched:
            parts += [f"{rate(rates.published)} publishes/s", f"{rate(rates.deliveries)} deliveries/s"]
        lines = self._wrap("channels", *parts)
        if any(counters["drops"].values()):
            lines += self._wrap("drops", *_reasons(counters["drops"]), style="yellow")
        return lines

    def _trouble(self, document: StatusDocument) -> list[str]:
        counters = document["counters"]
        named = {
            **{DEATHS.get(how, how): count for how, count in counters["worker_deaths"].items()},
            "orphans closed": counters["orphans_closed"],
            "messages rejected": counters["frames_rejected"],
            "publishes rejected": counters["publish_rejected"],
        }
        parts = _reasons(named)
        return self._wrap("trouble", *parts, style="yellow") if parts else []

    def _supervisor(self, known: Mapping[str, Any] | None) -> list[str]:
        if known is None:
            return []
        restarts = known.get("restarts")
        counts = restarts if isinstance(restarts, dict) else {}
        parts = [f"pid {known.get('pid', '-')}", f"generation {known.get('generation', '-')}"]
        if any(counts.values()):
            parts.append("restarts: " + ", ".join(f"{name} {count}" for name, count in counts.items() if count))
        lines = self._wrap("supervisor", *parts)
        if known.get("last_end"):
            lines += self._wrap("last end", str(known["last_end"]))
        if known.get("crash_loop"):
            lines += self._wrap("", "crash loop: it ends again and again; its log says why", style="red")
        return lines

    def _supervised_workers(self, known: Mapping[str, Any] | None) -> list[str]:
        workers = (known or {}).get("workers")
        if not isinstance(workers, list) or not workers:
            return []
        columns = [Column(title="WORKER", is_name=True), Column(title="PID"), Column(title="GEN"),
                   Column(title="STATE", is_name=True)]  # fmt: skip
        rows = [
            [Cell(printable(str(one.get(key, "-")))) for key in ("name", "pid", "generation", "state")]
            for one in workers
            if isinstance(one, dict)
        ]
        return ["", *build_table(columns, rows, self._columns, colour=self._colour)]


def _join(parts: list[list[str]], blanks: int) -> list[str]:
    """Put parts below each other, with a blank line between two of them as long as there are such."""
    lines: list[str] = []
    for part in parts:
        if part and lines and blanks > 0:
            lines.append("")
            blanks -= 1
        lines += part
    return lines


def _alarm(count: int) -> Cell:
    return Cell(number(count), "yellow" if count else "")


def _reasons(counts: Mapping[str, int]) -> list[str]:
    ranked = sorted(counts.items(), key=lambda one: -one[1])
    return [f"{name} {number(count)}" for name, count in ranked if count]
