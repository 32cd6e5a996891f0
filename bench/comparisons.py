"""Runs the comparisons of one command and prints what they gave."""

import json
from collections.abc import Callable, Mapping
from typing import Final

from bench import gateway, handler
from bench.machine import facts
from bench.options import Options
from bench.report import Comparison, as_json, as_text, facts_text

COMPARE: Final[Mapping[str, Callable[[Options], list[Comparison]]]] = {
    "handler": handler.compare,
    "gateway": gateway.compare,
}


def main(options: Options) -> None:
    """Measure what was asked for, and print the result."""
    machine = facts()
    found = COMPARE[options.command](options)
    if options.as_json:
        print(json.dumps(as_json(machine, options.rounds, found), indent=2))
        return
    print(facts_text(machine))
    for comparison in found:
        print("\n" + as_text(comparison))
