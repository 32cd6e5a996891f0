"""A folder of handler files served as one: each under its own name, and a page that lists them."""

import html
import importlib.util
import sys
from pathlib import Path

from m2gate.app.application import App
from m2gate.app.request import Request
from m2gate.app.response import Response
from m2gate.errors import ConfigError


def load_folder(path: Path) -> App:
    """Import every FILE.py in path whose name does not start with ``_`` and mount its app at /FILE/.

    Raises ConfigError if there is none; whatever a file raises goes on.
    """
    folder = str(path.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    root = App()
    cards: list[tuple[str, str]] = []
    for file in sorted(path.glob("[!_]*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
        app = getattr(module, "app", None)
        if isinstance(app, App):
            root.mount(f"/{file.stem}", app=app)
            cards.append((file.stem, (module.__doc__ or file.stem).strip().splitlines()[0]))
    if not cards:
        raise ConfigError("TARGET", str(path), "no file in it has an app", "write app = App() in one", str(path))

    @root.get("/")
    def index(_request: Request) -> Response:
        items = "".join(f'<li><a href="{name}/">{name}</a> {html.escape(title)}</li>' for name, title in cards)
        page = f"<!doctype html><meta charset=utf-8><title>m2gate</title><ul>{items}</ul>"
        return Response(page, content_type="text/html; charset=utf-8")

    return root
