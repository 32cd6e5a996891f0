"""``m2gate worker``: workers of a gateway that runs by itself."""

import click

from m2gate.cli.attach import parse_attach
from m2gate.cli.options import find_target, parse_access_log, worker_options


@click.command()
@click.argument("target", required=False)
@click.option(
    "--count", type=click.IntRange(1, 256), default=1, show_default=True, metavar="N", help="Worker processes."
)
@click.option(
    "--attach",
    multiple=True,
    metavar="SPEC",
    help="gateway:SOCKET, the socket named workers in a gateway's folder. Default: the one in"
    " /run/m2gate/gateway, below $M2GATE_ROOT if that is set.",
)
@worker_options
def command(
    *,
    target: str | None,
    count: int,
    attach: tuple[str, ...],
    reload: bool,
    access_log: str | None,
    drain_timeout: float,
    max_requests: int | None,
    no_patch: bool,
) -> None:
    """Run N workers with TARGET behind a gateway, see m2gate gateway.

    TARGET: a Python file, FILE.py:NAME, MODULE:NAME, or a folder of such files; app.py or handlers/
    if it is left out. A worker that dies is started again. Ctrl-C and SIGTERM end what is open and
    exit, a second one exits at once; SIGHUP lets workers with new code take over, without losing a
    request; SIGUSR1 prints how the processes are. A gateway that is not there is waited for.

    m2gate worker shop.web:app --count 4 --attach gateway:/run/m2gate/gateway/workers
    """
    from m2gate.cli.attached_workers import WorkerOptions, supervise  # what --help need not pay

    log = parse_access_log(access_log)  # before TARGET, which --access-log without a value may have swallowed
    options = WorkerOptions(
        target=find_target(target),
        folder=parse_attach(attach),
        count=count,
        reload=reload,
        access_log=log,
        drain_timeout_s=drain_timeout,
        max_requests=max_requests,
        patch=not no_patch,
    )
    raise click.exceptions.Exit(supervise(options))
