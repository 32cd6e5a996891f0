"""From the enabled sites to one Mongrel2 configuration: a server for each address, all in one database."""

from collections.abc import Sequence
from typing import Final

from m2gate.site.enabled import servers
from m2gate.site.installation import Installation
from m2gate.site.model import Listen, Site
from m2gate.site.places import Places
from m2gate.site.records import Configuration, Directory, Handler, Host, Server, Target
from m2gate.site.settings import DEFAULTS, tls_settings
from m2gate.site.static import MIMETYPES
from m2gate.site.static import SETTINGS as STATIC_SETTINGS

ACME_PATH: Final = "/.well-known/acme-challenge/"


def configure(sites: Sequence[Site], installation: Installation, places: Places) -> Configuration:
    """Return the configuration of all enabled sites, not checked yet."""
    listens = servers(sites)
    has_tls = any(one.tls for one in listens)
    return Configuration(
        servers=tuple(_server(listen, [site for site in sites if listen in site.listen], places) for listen in listens),
        settings={
            **DEFAULTS,
            **STATIC_SETTINGS,
            **(tls_settings(f"{places.certs}/") if has_tls else {}),
            **installation.mongrel2,
        },
        mimetypes=MIMETYPES,
        source=str(places.settings if installation.mongrel2 else places.enabled),
    )


def handler_of(listen: Listen, places: Places) -> Handler:
    """Return the sockets between the Mongrel2 of an address and the gateway."""
    return Handler(
        send_spec=f"ipc://{places.handlers}/{listen.server_id}.req",
        recv_spec=f"ipc://{places.handlers}/{listen.server_id}.rep",
        send_ident=listen.server_id,
    )


def control_spec(listen: Listen, places: Places) -> str:
    """Return the control port of the Mongrel2 of an address."""
    return f"ipc://{places.control}/{listen.server_id}.control"


def _server(listen: Listen, sites: Sequence[Site], places: Places) -> Server:
    ident, handler = listen.server_id, handler_of(listen, places)
    routes: dict[str, Target] = {"/": handler}
    if not listen.tls:
        routes[ACME_PATH] = Directory(base=f"{places.acme}{ACME_PATH}", default_ctype="text/plain")
    for site in sites:
        if not site.hosts or len(sites) == 1:
            routes |= _folders(site)
    return Server(
        uuid=ident,
        bind_addr=listen.address,
        port=listen.port,
        routes=routes,
        hosts=_hosts(sites, routes) if len(sites) > 1 else (),
        access_log=f"{places.logs}/{ident}.access.log",
        error_log=f"{places.logs}/{ident}.error.log",
        pid_file=f"{places.control}/{ident}.pid",
        control_port=control_spec(listen, places),
        use_ssl=listen.tls,
    )


def _folders(site: Site) -> dict[str, Target]:
    return {route.path: Directory(base=route.dir) for route in site.routes if route.dir is not None}


def _hosts(sites: Sequence[Site], routes: dict[str, Target]) -> tuple[Host, ...]:
    """Return a host for each name where some site has folders: also of those without, whose name may end alike."""
    if not any(_folders(site) for site in sites if site.hosts):
        return ()
    common = {path: target for path, target in routes.items() if path in ("/", ACME_PATH)}
    return tuple(
        Host(matching=name.removeprefix("*"), routes={**common, **_folders(site)})
        for site in sites
        for name in site.hosts
    )
