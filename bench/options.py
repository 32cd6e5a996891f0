"""The command line; standard library only, so that ``--help`` needs no environment."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ROUNDS_MIN: Final = 5

HOW: Final = """

Every round runs all sides, one after the other, each with servers of its own that are started and
stopped for it. A run in which other processes took the cores is repeated. Only ratios of one run
of this program mean anything, and only on a machine that does nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One of the things that can be measured: its letters name the comparisons it has.

    loaded: the letters whose runs take ``--seconds``; the others have a fixed amount of work.
    """

    help: str
    description: str
    letters: str
    loaded: str
    epilog: str


COMMANDS: Final[dict[str, Command]] = {
    "handler": Command(
        help="the handler side: the App against bare loops, ASGI and WSGI servers",
        letters="abcd",
        loaded="ac",
        description="""\
Measure the handler side of m2gate side by side with what it is compared to, and print ratios.

  a  the App behind a real Mongrel2, one route with a parameter, loaded by wrk
       / a bare pyzmq loop behind the same Mongrel2                      >= 0.90
  b  the handler side alone, fed with the frames Mongrel2 would send
       / a bare NOBLOCK loop on gevent                                   >= 0.60
     the same with handlers that wait 1 ms                               >= 0.40
  c  the App behind Mongrel2 / uvicorn (uvloop, httptools) + Starlette   >= 1.3
     for information: granian + Starlette, gunicorn -k gevent + Flask
  d  deliveries to 900 held streams through the App's channel
       / a bare loop of messages to 128 ids                              >= 0.85""",
        epilog="""\
examples:
  bench/run handler                          everything, about ten minutes
  bench/run handler --only a,b --seconds 3   quicker, while you change a hot path
  bench/run handler --json > figures.json    for further use; progress goes to stderr""",
    ),
    "gateway": Command(
        help="the gateway: workers behind it against one that is directly connected",
        letters="abcde",
        loaded="ac",
        description="""\
Measure the gateway of m2gate with real workers behind it, and print ratios.

  a  one worker behind the gateway / one directly connected, loaded by wrk >= 0.75
     for information: two workers, where four processes share the cores
  b  what dispatch costs: CPU of the gateway process a request (no other process counts),
     behind Mongrel2 and fed without it; the dispatcher alone, without sockets
  c  two workers whose handlers compute for 1 ms / one of them, both
     behind the gateway                                                   >= 1.6
  d  deliveries to 900 streams that the gateway holds, published by a
     worker, or pushed by another process
       / a bare loop of messages to 128 ids                               >= 0.85
     for information: the streams spread over 10, 100 and 1,000 channels
  e  memory of the gateway for each of 10,000 streams that it holds       <= 4,096 bytes
     for information: idle connections; the workers' own WebSockets; Mongrel2""",
        epilog="""\
examples:
  bench/run gateway                          everything, about twenty minutes
  bench/run gateway --only b --rounds 5      quicker, while you change the dispatcher
  bench/run gateway --json > figures.json    for further use; progress goes to stderr
(e) opens 10,000 connections: `ulimit -n` must be 12,000 or more.""",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for.

    command:     a key of COMMANDS.
    rounds:      of each comparison.
    seconds:     of load by wrk in each run of those that have no fixed amount of work.
    only:        letters of the comparisons wanted.
    foreign_max: part of the machine's cores, 0 to 1, that other processes may take during a run.
    """

    command: str
    rounds: int
    seconds: int
    only: str
    as_json: bool
    foreign_max: float


def parse(arguments: Sequence[str]) -> Options:
    """Parse the command line; on a mistake says so and exits with 2."""
    parser = argparse.ArgumentParser(prog="bench/run", description="Benchmarks of m2gate.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: _add(commands, name, command) for name, command in COMMANDS.items()}
    given = parser.parse_args(arguments)
    letters, only = COMMANDS[given.command].letters, given.only.replace(",", "")
    fail = parsers[given.command].error
    if given.rounds < ROUNDS_MIN:
        fail(f"--rounds {given.rounds}: a median of fewer than {ROUNDS_MIN} rounds says nothing")
    if given.seconds < 1:
        fail(f"--seconds {given.seconds}: wrk takes whole seconds, 1 or more")
    if not only or set(only) - set(letters):
        fail(f"--only {given.only}: name some of {','.join(letters)}")
    return Options(
        command=given.command,
        rounds=given.rounds,
        seconds=given.seconds,
        only=only,
        as_json=given.json,
        foreign_max=given.max_foreign / 100,
    )


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, command: Command
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=command.help,
        description=command.description + HOW,
        epilog=command.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS_MIN, metavar="N", help=f"rounds, {ROUNDS_MIN} or more (%(default)s)"
    )
    loaded = " and ".join(f"({letter})" for letter in command.loaded)
    parser.add_argument(
        "--seconds", type=int, default=5, metavar="S", help=f"load of each run of {loaded} (%(default)s)"
    )
    parser.add_argument("--only", default=",".join(command.letters), metavar="LETTERS", help="some of %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--max-foreign",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="of the cores that other processes may take in a run; with more it is repeated (%(default)s)",
    )
    parser.add_argument(
        "--python",
        metavar="FILE",
        help="interpreter that has everything, instead of a .venv-bench made for this; also $M2GATE_BENCH_PYTHON",
    )
    return parser
