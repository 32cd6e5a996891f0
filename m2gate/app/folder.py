"""A folder of handler files served as one App: each under its own name, and a page that lists them."""

from html import escape
from pathlib import Path
from types import ModuleType
from typing import Final
from urllib.parse import quote

from m2gate.app.application import App
from m2gate.app.request import Request
from m2gate.app.response import Response
from m2gate.app.user_code import DEFAULT_NAME, find_app, import_file
from m2gate.errors import ConfigError

INDEX: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; --paper: #f7f8f7; --card: #fff; --ink: #1b2422; --soft: #55625f; --line: #d9dfdd;
  --accent: #0f766e; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #131817; --card: #1c2322; --ink: #e6ecea; --soft: #9fadaa; --line: #333e3b; --accent: #5eead4; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }}
main {{ max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }}
h1 {{ margin: 0; font-size: clamp(1.5rem, 5vw, 2rem); }}
p {{ margin: .25rem 0 1.5rem; color: var(--soft); }}
ul {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; margin: 0;
  padding: 0; list-style: none; }}
a {{ display: flex; flex-direction: column; height: 100%; padding: 1.25rem; color: inherit; text-decoration: none;
  background: var(--card); border: 1px solid var(--line); border-radius: .75rem; overflow-wrap: anywhere; }}
a:hover, a:focus-visible {{ border-color: var(--accent); outline: 2px solid var(--accent); outline-offset: 0; }}
strong {{ color: var(--accent); text-wrap: balance; }}
span {{ margin: .4rem 0 .6rem; color: var(--soft); font-size: .9rem; }}
a code {{ margin-top: auto; }}
code {{ color: var(--soft); font: .8rem ui-monospace, "DejaVu Sans Mono", monospace; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>Each file of this folder is an application of its own; all of them run in this worker.</p>
<ul>
{cards}
</ul>
</main>
</body>
</html>
"""

CARD: Final = '<li><a href="{url}/"><strong>{title}</strong><span>{text}</span><code>{file}</code></a></li>'


def load_folder(path: Path) -> App:
    """Import every FILE.py in path, in the order of their names, and mount its ``app`` at /FILE/.

    Files whose name starts with ``_`` are for the others to import. ``/`` answers a page with a card
    for each, from the first line and the first paragraph of its docstring.
    Raises ConfigError: no such file, an error in one (its place named), one without ``app``.
    """
    files = sorted(path.glob("[!_]*.py"))
    if not files:
        problem = "there is no handler file in this folder"
        raise ConfigError("TARGET", str(path), problem, "add a FILE.py with app = App() in it")
    root = App()
    cards = [_mount(root, file) for file in files]
    page = INDEX.format(title=escape(f"{path.resolve().name}/"), cards="\n".join(cards))

    @root.get("/")
    def index(_request: Request) -> Response:
        return Response(page, content_type="text/html; charset=utf-8")

    return root


def _mount(root: App, file: Path) -> str:
    """Mount the app of one file on root; return its card."""
    module = import_file(file, str(file))
    app = find_app(module, DEFAULT_NAME, str(file), str(file))
    url = quote(file.stem)
    root.mount(f"/{url}", app=app)
    return _card(module, url, file.name)


def _card(module: ModuleType, url: str, file_name: str) -> str:
    title, _, rest = (module.__doc__ or file_name).strip().partition("\n")
    text = " ".join(rest.strip().partition("\n\n")[0].split()).replace("``", "")
    return CARD.format(url=url, title=escape(title.rstrip(".")), text=escape(text), file=escape(file_name))
