"""The private Mongrel2 of ``m2gate run``: one server, one worker behind it, files in one folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from m2gate.site.records import Configuration, Directory, Handler, Protocol, Server, SettingValue, Target
from m2gate.site.settings import DEFAULTS, tls_settings
from m2gate.site.static import MIMETYPES
from m2gate.site.static import SETTINGS as STATIC_SETTINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateServer:
    """What is asked of a private server; its sockets and files lie in ``folder``.

    folder:   short (sockets end at 107 bytes), and only ours.
    routes:   what the worker answers: paths, and ``@name`` for JSON sockets.
    static:   ``/url/`` to the folder that Mongrel2 serves there.
    certdir:  a prepared folder of certificates; None for plain HTTP.
    settings: Mongrel2 settings over the defaults.
    """

    folder: Path
    port: int
    bind_addr: str = "127.0.0.1"
    uuid: str = "m2gate"
    routes: tuple[str, ...] = ("/",)
    static: Mapping[str, Path] = field(default_factory=dict)
    certdir: Path | None = None
    protocol: Protocol = "tnetstring"
    raw_payload: bool = False
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    source: str = "m2gate run"

    @property
    def handler(self) -> Handler:
        """The pair of sockets between this server and its worker."""
        return Handler(
            send_spec=f"ipc://{self.folder}/requests",
            recv_spec=f"ipc://{self.folder}/replies",
            send_ident=self.uuid,
            protocol=self.protocol,
            raw_payload=self.raw_payload,
        )

    @property
    def control_spec(self) -> str:
        """The address of its control port."""
        return f"ipc://{self.folder}/control"

    def configuration(self) -> Configuration:
        """Return the whole configuration, not checked yet."""
        routes: dict[str, Target] = dict.fromkeys(self.routes, self.handler)
        for url, folder in self.static.items():
            routes[url] = Directory(base=f"{folder}/")
        of_static = STATIC_SETTINGS if self.static else {}
        settings = {**DEFAULTS, **of_static, **self.settings}
        if self.certdir is not None:
            settings = {**tls_settings(f"{self.certdir}/"), **settings}
        server = Server(
            uuid=self.uuid,
            port=self.port,
            bind_addr=self.bind_addr,
            routes=routes,
            access_log=f"{self.folder}/access.log",
            error_log=f"{self.folder}/error.log",
            pid_file=f"{self.folder}/mongrel2.pid",
            control_port=self.control_spec,
            use_ssl=self.certdir is not None,
        )
        return Configuration(
            servers=(server,),
            settings=settings,
            mimetypes=MIMETYPES if self.static else {},
            source=self.source,
        )
