"""``m2gate run``: a private Mongrel2 and the App behind it, for as long as it runs."""

import os
from pathlib import Path

import click

from m2gate.cli.options import find_target, parse_server_options, server_options
from m2gate.errors import ConfigError


@click.command()
@click.argument("target", required=False)
@server_options
@click.option("--reload", is_flag=True, help="Load the code again when a source file changes.")
@click.option(
    "--access-log",
    is_flag=False,
    flag_value="-",
    metavar="[FILE]",
    help="One line a request, to FILE or without it to stderr. Default: only if stderr is a terminal.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0, 86_400),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds for what is open at a stop.",
)
@click.option(
    "--max-requests",
    type=click.IntRange(1),
    metavar="N",
    help="Let a fresh process take over after N requests. Default: never.",
)
@click.option("--no-patch", is_flag=True, help="Leave the standard library alone: only gevent's own calls cooperate.")
def command(
    *,
    target: str | None,
    bind: str,
    static: tuple[str, ...],
    tls_certs: str | None,
    reload: bool,
    access_log: str | None,
    drain_timeout: float,
    max_requests: int | None,
    no_patch: bool,
) -> None:
    """Start Mongrel2 with TARGET behind it.

    TARGET: a Python file, FILE.py:NAME, MODULE:NAME, or a folder of such files; app.py or handlers/
    if it is left out. Ctrl-C and SIGTERM end what is open and exit; SIGHUP loads the code again.
    """
    from m2gate.cli.launch import RunOptions, launch  # jinja2 and sqlite3 take time that --help need not pay

    log = _access_log(access_log)  # before TARGET, which --access-log without a value may have swallowed
    options = RunOptions(
        target=find_target(target),
        server=parse_server_options(bind, static, tls_certs),
        reload=reload,
        access_log=log,
        drain_timeout_s=drain_timeout,
        max_requests=max_requests,
        patch=not no_patch,
    )
    raise click.exceptions.Exit(launch(options))


def _access_log(value: str | None) -> str | None:
    if value is None:
        return "-" if os.isatty(2) else None
    if value == "-":
        return value
    path = Path(os.path.abspath(value))
    if path.suffix == ".py" or path.is_dir() or (not path.parent.is_dir()):
        problem = "this is no place for a log"
        remedy = "write --access-log=FILE, or put TARGET before --access-log"
        raise ConfigError("--access-log", value, problem, remedy)
    return str(path)
