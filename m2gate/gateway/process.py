"""The main program of a gateway process: ``python -m m2gate.gateway.process SETTINGS.json``.

Patches the standard library before anything else is imported, so this module imports the rest only
when it runs.
"""

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run the gateway until SIGTERM; return its exit status: 0, or 2 for what the operator must mend."""
    from m2gate.errors import ConfigError

    if len(arguments) != 1:
        sys.stderr.write("m2gate: a gateway takes one argument: its settings file; use m2gate gateway\n")
        return 2
    try:
        from gevent import monkey

        monkey.patch_all()
        from m2gate.gateway.service import run
        from m2gate.gateway.settings import GatewaySettings

        return run(GatewaySettings.read_json(Path(arguments[0])))
    except ConfigError as error:
        sys.stderr.write(f"m2gate: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
