"""``m2gate outbound``: where requests that leave may go."""

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from m2gate.outbound.guard import Decision


@click.group()
def command() -> None:
    """Look at the guard of requests that leave: which URLs they may reach, and why."""


@command.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--allow-net", metavar="CIDR", multiple=True, help="Take these addresses though not public; repeatable.")
@click.option("--deny-net", metavar="CIDR", multiple=True, help="Refuse these addresses though public; repeatable.")
@click.option(
    "--allow-host", metavar="NAME", multiple=True, help="Take this name though of inside; *.NAME; repeatable."
)
@click.option("--deny-host", metavar="NAME", multiple=True, help="Refuse this name, or *.NAME below it; repeatable.")
@click.option("--allow-port", type=click.IntRange(1, 65_535), multiple=True, help="Only these ports; repeatable.")
@click.option("--deny-port", type=click.IntRange(1, 65_535), multiple=True, help="Never these ports; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: a list with url, allowed, addresses and steps.")
def check(
    *,
    urls: tuple[str, ...],
    allow_net: tuple[str, ...],
    deny_net: tuple[str, ...],
    allow_host: tuple[str, ...],
    deny_host: tuple[str, ...],
    allow_port: tuple[int, ...],
    deny_port: tuple[int, ...],
    as_json: bool,
) -> None:
    """Say whether a request may go to each URL, and which rule decides; nothing is sent but the name's look-up.

    By default all public addresses may be reached, and nothing of this machine or its networks. What is denied
    stays so even if it is also allowed. Exit status 1 if one is refused.
    """
    from m2gate.outbound.guard import Guard
    from m2gate.outbound.policy import Policy, parse_network

    policy = Policy(
        allow_networks=tuple(parse_network(text, "--allow-net") for text in allow_net),
        deny_networks=tuple(parse_network(text, "--deny-net") for text in deny_net),
        allow_hosts=tuple(name.lower() for name in allow_host),
        deny_hosts=tuple(name.lower() for name in deny_host),
        allow_ports=frozenset(allow_port),
        deny_ports=frozenset(deny_port),
    )
    guard = Guard(policy)
    decisions = [(text, guard.examine(text)) for text in urls]
    if as_json:
        click.echo(json.dumps([_document(text, decision) for text, decision in decisions], indent=2))
    else:
        for text, decision in decisions:
            _print(text, decision)
    raise click.exceptions.Exit(0 if all(decision.is_allowed for _, decision in decisions) else 1)


def _print(text: str, decision: "Decision") -> None:
    from m2gate.cli.table import printable

    click.echo(f"{printable(text)}: {'allowed' if decision.is_allowed else 'refused'}")
    for step in decision.steps:
        click.echo(printable(f"    {step.rule:<8} {step.text}"))


def _document(text: str, decision: "Decision") -> dict[str, object]:
    return {
        "url": text,
        "allowed": decision.is_allowed,
        "addresses": [str(one) for one in decision.addresses],
        "steps": [{"rule": step.rule, "text": step.text} for step in decision.steps],
    }
