"""The command line; standard library only, so that ``--help`` needs no environment."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ROUNDS_MIN: Final = 5
LETTERS: Final = "abcd"

DESCRIPTION: Final = """\
Measure the handler side of m2gate side by side with what it is compared to, and print ratios.

  a  the App behind a real Mongrel2, one route with a parameter, loaded by wrk
       / a bare pyzmq loop behind the same Mongrel2                      >= 0.90
  b  the handler side alone, fed with the frames Mongrel2 would send
       / a bare NOBLOCK loop on gevent                                   >= 0.60
     the same with handlers that wait 1 ms                               >= 0.40
  c  the App behind Mongrel2 / uvicorn (uvloop, httptools) + Starlette   >= 1.3
     for information: granian + Starlette, gunicorn -k gevent + Flask
  d  deliveries to 900 held streams through the App's channel
       / a bare loop of messages to 128 ids                              >= 0.85

Every round runs all sides, one after the other, each with servers of its own that are started and
stopped for it. A run in which other processes took the cores is repeated. Only ratios of one run
of this program mean anything, and only on a machine that does nothing else."""

EPILOG: Final = """\
examples:
  bench/run handler                          everything, about ten minutes
  bench/run handler --only a,b --seconds 3   quicker, while you change a hot path
  bench/run handler --json > figures.json    for further use; progress goes to stderr"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for.

    rounds:      of each comparison.
    seconds:     of load by wrk in each run of (a) and (c); (b) and (d) have a fixed amount of work.
    only:        letters of the comparisons wanted.
    foreign_max: part of the machine's cores, 0 to 1, that other processes may take during a run.
    """

    rounds: int
    seconds: int
    only: str
    as_json: bool
    foreign_max: float


def parse(arguments: Sequence[str]) -> Options:
    """Parse the command line; on a mistake says so and exits with 2."""
    parser = argparse.ArgumentParser(prog="bench/run", description="Benchmarks of m2gate.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    handler = commands.add_parser(
        "handler",
        help="the handler side: the App against bare loops, ASGI and WSGI servers",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    handler.add_argument(
        "--rounds", type=int, default=ROUNDS_MIN, metavar="N", help=f"rounds, {ROUNDS_MIN} or more (%(default)s)"
    )
    handler.add_argument(
        "--seconds", type=int, default=5, metavar="S", help="load of each run of (a) and (c) (%(default)s)"
    )
    handler.add_argument("--only", default=",".join(LETTERS), metavar="LETTERS", help="some of %(default)s")
    handler.add_argument("--json", action="store_true", help="print JSON instead of tables")
    handler.add_argument(
        "--max-foreign",
        type=float,
        default=5.0,
        metavar="PERCENT",
        help="of the cores that other processes may take in a run; with more it is repeated (%(default)s)",
    )
    handler.add_argument(
        "--python",
        metavar="FILE",
        help="interpreter that has everything, instead of a .venv-bench made for this; also $M2GATE_BENCH_PYTHON",
    )
    given = parser.parse_args(arguments)
    only = given.only.replace(",", "")
    if given.rounds < ROUNDS_MIN:
        handler.error(f"--rounds {given.rounds}: a median of fewer than {ROUNDS_MIN} rounds says nothing")
    if given.seconds < 1:
        handler.error(f"--seconds {given.seconds}: wrk takes whole seconds, 1 or more")
    if not only or set(only) - set(LETTERS):
        handler.error(f"--only {given.only}: name some of {','.join(LETTERS)}")
    return Options(
        rounds=given.rounds,
        seconds=given.seconds,
        only=only,
        as_json=given.json,
        foreign_max=given.max_foreign / 100,
    )
