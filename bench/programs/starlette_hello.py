"""The same route for uvicorn and granian."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def hello(request: Request) -> PlainTextResponse:
    """Answer at once."""
    return PlainTextResponse(f"Hello {request.path_params['name']}\n")


app = Starlette(routes=[Route("/hello/{name}", hello)])
