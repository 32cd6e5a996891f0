"""What the gateway of all enabled sites is told: its servers, its sites, and the installation's settings."""

from m2gate.cli.rundir import RunError
from m2gate.gateway.place import default_folder
from m2gate.gateway.settings import GatewaySettings
from m2gate.site.configure import control_spec, handler_of
from m2gate.site.enabled import read_enabled, servers
from m2gate.site.installation import read_installation
from m2gate.site.model import Listen, Site
from m2gate.site.places import Places

SECONDS = {"drain_timeout": "drain_timeout_s", "keepalive": "keepalive_s"}


def gateway_settings(places: Places) -> GatewaySettings:
    """Return the settings for what is enabled now. Raises ConfigError; RunError if no site is enabled."""
    sites = read_enabled(places)
    if not sites:
        raise RunError(f"no site is enabled in {places.enabled}; m2gate site enable NAME does that")
    settings = read_installation(places).gateway
    document = {SECONDS.get(key, key): value for key, value in settings.items()} | {
        "folder": default_folder(),
        "servers": [_server(places, one) for one in servers(sites)],
        "sites": [_site(one) for one in sites],
    }
    return GatewaySettings.of(document, places.settings)


def _server(places: Places, listen: Listen) -> dict[str, str]:
    handler = handler_of(listen, places)
    return {
        "send_ident": handler.send_ident,
        "send_spec": handler.send_spec,
        "recv_spec": handler.recv_spec,
        "control_spec": control_spec(listen, places),
    }


def _site(site: Site) -> dict[str, object]:
    secure = next((one.port for one in site.listen if one.tls), 0)
    return {
        "hosts": list(site.hosts),
        "servers": [one.server_id for one in site.listen],
        "routes": {route.path: route.handler for route in site.routes if route.handler is not None},
        "redirects": {one.server_id: secure for one in site.listen if site.redirect and not one.tls},
    }
