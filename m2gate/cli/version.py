"""``m2gate version``: what to put into a report of a bug."""

import click

from m2gate.version import __version__


@click.command()
def command() -> None:
    """Print the versions of m2gate and of what it stands on."""
    from m2gate.site.doctor.software import find_software

    found = find_software()
    lines = {
        "m2gate": __version__,
        "python": found.python,
        "pyzmq": found.libraries["pyzmq"],
        "libzmq": found.libzmq,
        "gevent": found.libraries["gevent"],
        "tnetstring3": found.libraries["tnetstring3"],
        "mongrel2": found.mongrel2,
    }
    for name, version in lines.items():
        click.echo(f"{name} {version}")
