"""``m2gate worker``: workers of a gateway that runs by itself."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from m2gate.cli.attach import parse_attach
from m2gate.cli.options import find_target, parse_access_log, worker_options

if TYPE_CHECKING:
    from m2gate.site.model import HandlerSection


@click.command()
@click.argument("target", metavar="[NAME | TARGET]", required=False)
@click.option(
    "--count", type=click.IntRange(1, 256), metavar="N", help="Worker processes. Default: as NAME says, else 1."
)
@click.option(
    "--attach",
    multiple=True,
    metavar="SPEC",
    help="gateway:SOCKET, the socket named workers in a gateway's folder. Default: the one in"
    " /run/m2gate/gateway, below $M2GATE_ROOT if that is set.",
)
@worker_options
@click.pass_context
def command(
    context: click.Context,
    *,
    target: str | None,
    count: int | None,
    attach: tuple[str, ...],
    reload: bool,
    access_log: str | None,
    drain_timeout: float,
    max_requests: int | None,
    no_patch: bool,
) -> None:
    """Run N workers with TARGET behind a gateway, see m2gate gateway.

    NAME: a handler section of an enabled site, which says TARGET, how many, and for how long they drain.

    TARGET: a Python file, FILE.py:NAME, MODULE:NAME, or a folder of such files; app.py or handlers/
    if it is left out. A worker that dies is started again. Ctrl-C and SIGTERM end what is open and
    exit, a second one exits at once; SIGHUP lets workers with new code take over, without losing a
    request; SIGUSR1 prints how the processes are. A gateway that is not there is waited for.

    m2gate worker shop

    m2gate worker shop.web:app --count 4 --attach gateway:/run/m2gate/gateway/workers
    """
    from m2gate.cli.attached_workers import WorkerOptions, supervise  # what --help need not pay

    log = parse_access_log(access_log)  # before TARGET, which --access-log without a value may have swallowed
    section = find_section(target)
    if section is not None and context.get_parameter_source("drain_timeout") is ParameterSource.DEFAULT:
        drain_timeout = section.drain_timeout_s
    options = WorkerOptions(
        target=section.target if section is not None else find_target(target),
        folder=parse_attach(attach),
        handler=section.name if section is not None else "",
        count=count or (section.workers if section is not None else 1),
        reload=reload,
        access_log=log,
        drain_timeout_s=drain_timeout,
        max_requests=max_requests or (section.max_requests if section is not None else None),
        patch=not no_patch,
    )
    raise click.exceptions.Exit(supervise(options))


def find_section(name: str | None) -> "HandlerSection | None":
    """Return the handler section that is meant; None if a TARGET is.

    Raises ConfigError for a site that cannot be read, click.ClickException for a name that nothing has.
    """
    from m2gate.site.enabled import find_handler, read_enabled
    from m2gate.site.places import Places
    from m2gate.site.sites import HANDLER_NAME

    if name is None or not HANDLER_NAME.fullmatch(name):
        return None
    places = Places.here()
    section = find_handler(read_enabled(places), name)
    if section is None and not Path(name).exists():
        text = f"{name}: no enabled site has such a handler, and there is no such folder"
        raise click.ClickException(f"{text}; m2gate site list shows what {places.enabled} has")
    return section
