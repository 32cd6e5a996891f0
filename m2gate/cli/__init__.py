"""The ``m2gate`` command: one module per sub-command, imported when it is used."""

import importlib
import sys
from typing import Final

import click

from m2gate.errors import ConfigError, M2GateError
from m2gate.version import __version__

COMMANDS: Final = {
    "cert": "m2gate.cli.cert",
    "doctor": "m2gate.cli.doctor",
    "outbound": "m2gate.cli.outbound",
    "publish": "m2gate.cli.publish",
    "run": "m2gate.cli.run",
    "site": "m2gate.cli.site",
    "config": "m2gate.cli.config",
    "gateway": "m2gate.cli.gateway",
    "status": "m2gate.cli.status",
    "version": "m2gate.cli.version",
    "worker": "m2gate.cli.worker",
}


class LazyGroup(click.Group):
    """Sub-commands by name; a module is imported only when its command is used or described."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all sub-commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a sub-command, or None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.group(cls=LazyGroup, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="m2gate %(version)s")
def commands() -> None:
    """Python handlers behind a real Mongrel2."""


def main() -> None:
    """Run the command line and exit: 0 good, 1 what was asked for failed, 2 wrong usage or configuration."""
    try:
        status = commands.main(prog_name="m2gate", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "m2gate"
        print(f"m2gate: {error.format_message().rstrip('.')}; see {path} --help", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        print(f"m2gate: {error.format_message()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except M2GateError as error:
        print(f"m2gate: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
