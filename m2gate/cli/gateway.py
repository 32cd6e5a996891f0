"""``m2gate gateway``: the gateway process by itself, for workers that are started elsewhere."""

from pathlib import Path

import click

from m2gate.errors import ConfigError


@click.command()
@click.option("-c", "--config", metavar="FILE", help="The servers and settings, see above.")
def command(*, config: str | None) -> None:
    """Link Mongrel2 servers, and hand their requests to the workers that attach.

    FILE is TOML: for each Mongrel2 a table [[servers]] with send_ident, send_spec, recv_spec and
    control_spec, as its configuration names them; before these tables, if wanted, folder (of the sockets
    for workers and status; default /run/m2gate/gateway, below $M2GATE_ROOT if that is set), publish_http,
    publish_pull, publish_sub, metrics, access_log, drain_timeout_s, queue_max and keepalive_s.

    Workers attach with m2gate worker. Ctrl-C and SIGTERM drain and exit, a second one exits at once.
    """
    if config is None:
        problem = "there are no enabled sites to take the servers from in this version"
        raise ConfigError("-c", "", problem, "say -c FILE with [[servers]] in it; m2gate gateway --help shows one")
    from gevent import monkey

    monkey.patch_all()
    from m2gate.cli.gateway_run import run_gateway

    raise click.exceptions.Exit(run_gateway(Path(config)))
