"""``m2gate config``: Mongrel2's configuration, of all enabled sites or as ``m2gate run`` would make it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from m2gate.cli.options import parse_server_options, server_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m2gate.site.apply import Plan
    from m2gate.site.model import Site
    from m2gate.site.records import Configuration

SHOWN_FOLDER = Path("/run/m2gate")


@click.group()
def command() -> None:
    """Show, check or apply Mongrel2's configuration.

    It is that of all enabled sites, see m2gate site. With --bind, --static or --tls-certs, and where no site
    is enabled, it is that of m2gate run.
    """


@command.command()
@server_options
@click.pass_context
def render(context: click.Context, *, bind: str, static: tuple[str, ...], tls_certs: str | None) -> None:
    """Print the configuration, each setting with its reason, in m2sh's language.

    What run would use stands in /run/m2gate/run-PORT here; run puts it into its own folder, and adds
    the JSON sockets of the App.
    """
    from m2gate.site.certificates import read_pairs
    from m2gate.site.render import render as render_text

    if not _is_about_run(context):
        click.echo(render_text(_of_sites()[1]).text, nl=False)
        return
    options = parse_server_options(bind, static, tls_certs)
    if options.tls_certs is not None:
        read_pairs(options.tls_certs)
    folder = SHOWN_FOLDER / f"run-{options.port or 'PORT'}"
    certdir = None if options.tls_certs is None else folder / "certs"
    server = options.private_server(folder, options.port or 6767, ["/"], certdir)
    click.echo(render_text(server.configuration()).text, nl=False)


@command.command()
@server_options
@click.option("--quiet", is_flag=True, help="Print nothing if all is well.")
@click.pass_context
def check(context: click.Context, *, bind: str, static: tuple[str, ...], tls_certs: str | None, quiet: bool) -> None:
    """Load the configuration into a database, and compare what is in it. Nothing is changed.

    Exits with 0 if all is well, 1 if m2sh fails or stores something else, 2 for a wrong option or site.
    """
    from m2gate.cli.rundir import scratch_directory
    from m2gate.site.certificates import prepare_certdir
    from m2gate.site.load import write_configuration

    with scratch_directory() as name:
        folder = Path(name)
        if _is_about_run(context):
            options = parse_server_options(bind, static, tls_certs)
            certdir = options.tls_certs and prepare_certdir(options.tls_certs, folder / "certs", "check")
            server = options.private_server(folder, options.port or 6767, ["/"], certdir)
            write_configuration(server.configuration(), folder)
        else:
            from m2gate.site.apply import check_certificates
            from m2gate.site.places import Places

            sites, configuration = _of_sites()
            write_configuration(configuration, folder)
            check_certificates(Places.here(), sites)
    if not quiet:
        click.echo("configuration is good")


@command.command()
@click.option("--restart", is_flag=True, help="Restart what has to be, which refuses connections for a moment.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
def apply(*, restart: bool, dry_run: bool) -> None:
    """Let what is enabled be served: make Mongrel2's database, and start, reload or stop what has changed.

    First it says what it will do. What refuses connections or cuts them it does with --restart only;
    without that nothing is changed then, and it exits with 1. On any error the old configuration stays.
    """
    from m2gate.site.apply import install_pairs, prepared
    from m2gate.site.places import Places
    from m2gate.site.units import carry_out

    places = Places.here()
    with prepared(places) as preparation:
        plan = preparation.plan()
        _tell(plan)
        if plan.is_nothing or dry_run:
            return
        if plan.refusing and not restart:
            names = ", ".join(one.name for one in plan.refusing)
            text = f"{names} would refuse connections for a moment, and cut those that are open"
            raise click.ClickException(f"{text}; nothing was changed: say --restart for that")
        install_pairs(places, plan.sites)
        preparation.install(plan)
    for line in carry_out(plan, places):
        click.echo(line)


def _tell(plan: "Plan") -> None:
    if plan.is_nothing:
        click.echo("nothing to do: all that is enabled is applied")
        return
    for one in plan.changes:
        if one.action != "keep":
            effect = ", refuses connections for a moment" if one.refuses else ""
            click.echo(f"{'server' if one.is_server else 'workers'} {one.name}: {one.action}, {one.why}{effect}")
    if plan.needs_gateway:
        click.echo("gateway: reload, its servers or routes have changed")


def _is_about_run(context: click.Context) -> bool:
    """Tell whether the configuration of ``m2gate run`` is meant: an option says so, or no site is enabled."""
    from click.core import ParameterSource

    from m2gate.site.enabled import enabled_files
    from m2gate.site.places import Places

    names = ("bind", "static", "tls_certs")
    is_said = any(context.get_parameter_source(name) is not ParameterSource.DEFAULT for name in names)
    return is_said or not enabled_files(Places.here())


def _of_sites() -> "tuple[Sequence[Site], Configuration]":
    """Return the enabled sites and the configuration made of them."""
    from m2gate.site.configure import configure
    from m2gate.site.enabled import read_enabled
    from m2gate.site.installation import read_installation
    from m2gate.site.places import Places

    places = Places.here()
    sites = read_enabled(places)
    return sites, configure(sites, read_installation(places), places)
