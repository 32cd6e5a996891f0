"""``m2gate run``: a private Mongrel2 and the App behind it, for as long as it runs."""

import click

from m2gate.cli.addresses import input_options, parse_inputs
from m2gate.cli.options import find_target, parse_access_log, parse_server_options, server_options, worker_options


@click.command()
@click.argument("target", required=False)
@server_options
@input_options
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Worker processes; more than one stand behind a gateway, which survives their deaths and reloads.",
)
@click.option("--gateway", is_flag=True, help="Put a gateway before a single worker, too.")
@worker_options
def command(
    *,
    target: str | None,
    bind: str,
    static: tuple[str, ...],
    tls_certs: str | None,
    publish_http: str | None,
    publish_pull: str | None,
    publish_sub: str | None,
    metrics: str | None,
    workers: int,
    gateway: bool,
    reload: bool,
    access_log: str | None,
    drain_timeout: float,
    max_requests: int | None,
    no_patch: bool,
) -> None:
    """Start Mongrel2 with TARGET behind it.

    TARGET: a Python file, FILE.py:NAME, MODULE:NAME, or a folder of such files; app.py or handlers/
    if it is left out. Ctrl-C and SIGTERM end what is open and exit, a second one exits at once; SIGHUP
    loads the code again, in all workers; SIGUSR1 prints how the processes are. What dies is started again.

    m2gate run app.py --workers 4 --publish-http 127.0.0.1:5561
    """
    from m2gate.cli.launch import RunOptions, launch  # jinja2 and sqlite3 take time that --help need not pay

    log = parse_access_log(access_log)  # before TARGET, which --access-log without a value may have swallowed
    options = RunOptions(
        target=find_target(target),
        server=parse_server_options(bind, static, tls_certs),
        inputs=parse_inputs(publish_http, publish_pull, publish_sub, metrics),
        workers=workers,
        is_gateway=gateway,
        reload=reload,
        access_log=log,
        drain_timeout_s=drain_timeout,
        max_requests=max_requests,
        patch=not no_patch,
    )
    raise click.exceptions.Exit(launch(options))
