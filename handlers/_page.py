"""The frame that the examples share: one HTML document, one style, no request to anywhere else.

A page is ``pages/NAME.html`` beside ``NAME.py``: markup and at most one script. Around it go the
title and the text of the module's docstring, and below it the module's source, so that a page
always shows the code that serves it. All is read for each request: edit, and press reload.
"""

import ast
import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Final

from m2gate import Response

PAGES: Final = Path(__file__).parent / "pages"

FRAME: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Cpath
 d='M1 7V1h2l1 2 1-2h2v6' fill='none' stroke='%230f766e'/%3E%3C/svg%3E">
<style>{style}</style>
</head>
<body>
<header><a href="{home}">m2gate examples</a></header>
<main>
<h1>{title}</h1>
{lead}
{body}
<details>
<summary>The code behind this page: {name}</summary>
<pre tabindex="0"><code>{source}</code></pre>
</details>
</main>
</body>
</html>
"""


def html_page(module_file: str) -> Response:
    """Return the page of the module whose ``__file__`` is given."""
    body = (PAGES / Path(module_file).with_suffix(".html").name).read_text()
    document, policy = frame(module_file, body)
    return Response(document, headers={"Content-Security-Policy": policy}, content_type="text/html; charset=utf-8")


def frame(module_file: str, body: str, home: str = "../") -> tuple[str, str]:
    """Return the whole document around body, and the Content-Security-Policy that goes with it.

    The policy allows this style, the script in body and this server; nothing else is run or fetched.
    home: where the list of all examples is, seen from the page.
    """
    path = Path(module_file)
    source = path.read_text()
    title, _, text = (ast.get_docstring(ast.parse(source)) or path.stem).partition("\n")
    style = (PAGES / "style.css").read_text()
    document = FRAME.format(
        title=escape(title.rstrip(".")),
        home=escape(home),
        lead=_paragraphs(text),
        body=body,
        name=escape(f"{path.parent.name}/{path.name}"),
        source=escape(source),
        style=style,
    )
    scripts = " ".join(_hash(script) for script in re.findall(r"<script>(.*?)</script>", body, re.DOTALL))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {scripts or _NONE}; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return document, policy


_NONE: Final = "'none'"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _paragraphs(text: str) -> str:
    """Turn the paragraphs of a docstring into HTML; ``word`` becomes code."""
    paragraphs = [escape(" ".join(one.split())) for one in text.split("\n\n") if one.strip()]
    with_code = [re.sub("``(.+?)``", r"<code>\1</code>", one) for one in paragraphs]
    return "\n".join(f'<p class="lead">{one}</p>' for one in with_code)
