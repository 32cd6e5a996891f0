"""``m2gate doctor``: what is wrong with this installation."""

import json
from dataclasses import asdict

import click


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="For scripts: an object with versions, findings, closed and healthy."
)
def command(*, as_json: bool) -> None:
    """Look for the known traps of an installation, running or not; nothing is changed.

    Prints versions, then each finding with where it is and what to do. Exit status 1 if there is one.
    """
    from m2gate.cli.table import printable
    from m2gate.site.doctor.examine import examine, find_closed
    from m2gate.site.doctor.software import find_software
    from m2gate.site.places import Places

    software = find_software()
    places = Places.here()
    findings, closed = examine(places, software), [str(folder) for folder in find_closed(places)]
    if as_json:
        document = {
            "versions": software.lines(),
            "findings": [asdict(one) for one in findings],
            "closed": closed,
            "healthy": not findings,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        for name, version in software.lines().items():
            click.echo(f"{name} {version}")
        for one in findings:
            click.echo(printable(f"{one.name}: {one.where}: {one.what}"))
            click.echo(f"    {printable(one.remedy)}")
        if closed:
            click.echo(
                f"m2gate: not looked at, as this user may not enter: {', '.join(closed)}; run it as root", err=True
            )
    raise click.exceptions.Exit(1 if findings else 0)
