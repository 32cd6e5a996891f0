"""The main program of a worker process: ``python -m m2gate.worker.process SETTINGS.json``.

Patches the standard library before anything else is imported, so this module imports the rest only
when it runs.
"""

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run one worker until SIGTERM; return its exit status: 0, or 2 for what the operator must mend."""
    from m2gate.errors import ConfigError

    if len(arguments) != 1:
        sys.stderr.write("m2gate: a worker takes one argument: its settings file; use m2gate run\n")
        return 2
    try:
        if _wants_patch(Path(arguments[0])):
            from gevent import monkey

            monkey.patch_all()
        from m2gate.worker.service import run
        from m2gate.worker.settings import WorkerSettings

        return run(WorkerSettings.read(Path(arguments[0])))
    except ConfigError as error:
        sys.stderr.write(f"m2gate: {error}\n")
        return 2


def _wants_patch(path: Path) -> bool:
    import json

    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return True  # WorkerSettings.read will say what is wrong with it
    return not isinstance(document, dict) or bool(document.get("patch", True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
