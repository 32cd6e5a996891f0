"""``m2gate config``: look at the Mongrel2 configuration that ``m2gate run`` would use."""

from pathlib import Path

import click

from m2gate.cli.options import parse_server_options, server_options

SHOWN_FOLDER = Path("/run/m2gate")


@click.group()
def command() -> None:
    """Show or check the Mongrel2 configuration that run would use."""


@command.command()
@server_options
def render(bind: str, static: tuple[str, ...], tls_certs: str | None) -> None:
    """Print the configuration, each setting with its reason, in m2sh's language.

    Its sockets and files stand in /run/m2gate/run-PORT; run puts them into its own folder, and adds
    the JSON sockets of the App.
    """
    from m2gate.site.certificates import read_pairs
    from m2gate.site.render import render as render_text

    options = parse_server_options(bind, static, tls_certs)
    if options.tls_certs is not None:
        read_pairs(options.tls_certs)
    folder = SHOWN_FOLDER / f"run-{options.port or 'PORT'}"
    certdir = None if options.tls_certs is None else folder / "certs"
    server = options.private_server(folder, options.port or 6767, ["/"], certdir)
    click.echo(render_text(server.configuration()).text, nl=False)


@command.command()
@server_options
def check(bind: str, static: tuple[str, ...], tls_certs: str | None) -> None:
    """Load the configuration into a database as run does, and compare what is in it.

    Exits with 0 if all is well, 1 if m2sh fails or stores something else, 2 for a wrong option.
    """
    from m2gate.cli.rundir import scratch_directory
    from m2gate.site.certificates import prepare_certdir
    from m2gate.site.load import write_configuration

    options = parse_server_options(bind, static, tls_certs)
    with scratch_directory() as name:
        folder = Path(name)
        certdir = None if options.tls_certs is None else prepare_certdir(options.tls_certs, folder / "certs", "check")
        server = options.private_server(folder, options.port or 6767, ["/"], certdir)
        write_configuration(server.configuration(), folder)
    click.echo("configuration is good")
