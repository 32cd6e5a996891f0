"""``m2gate gateway``: the gateway process by itself, for workers that are started elsewhere."""

from pathlib import Path

import click


@click.command()
@click.option("-c", "--config", metavar="FILE", help="The servers and settings, see above.")
def command(*, config: str | None) -> None:
    """Link Mongrel2 servers, and hand their requests to the workers that attach.

    Without FILE: the servers of all enabled sites, see m2gate site.

    FILE is TOML: for each Mongrel2 a table [[servers]] with send_ident, send_spec, recv_spec and
    control_spec, as its configuration names them; before these tables, if wanted, folder (of the sockets
    for workers and status; default /run/m2gate/gateway, below $M2GATE_ROOT if that is set), publish_http,
    publish_pull, publish_sub, metrics, access_log, drain_timeout_s, queue_max and keepalive_s.

    Workers attach with m2gate worker. Ctrl-C and SIGTERM drain and exit, a second one exits at once; SIGHUP
    reads the sites, or FILE, again.
    """
    from gevent import monkey

    monkey.patch_all()
    from m2gate.cli.gateway_run import run_gateway
    from m2gate.gateway.settings import GatewaySettings
    from m2gate.site.places import Places

    if config is not None:
        file = Path(config)
        raise click.exceptions.Exit(run_gateway(lambda: GatewaySettings.read_toml(file)))
    from m2gate.cli.site_gateway import gateway_settings

    places = Places.here()
    raise click.exceptions.Exit(run_gateway(lambda: gateway_settings(places)))
