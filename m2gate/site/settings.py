"""Mongrel2's settings: which exist, within which bounds they work, and what m2gate sets.

The reason for each value stands beside it in ``mongrel2.conf.d``, and so in the rendered file.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from m2gate.errors import ConfigError
from m2gate.site.records import SettingValue

_INT_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A whole number from low to high; ``why`` says what happens below ``low``."""

    low: int = 0
    high: int = _INT_MAX
    why: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A string without quotes and control characters; ``why`` says what it must look like."""

    why: str = ""


_SWITCH: Final = Bounds(high=1)
_COUNT: Final = Bounds(low=1)

KNOWN: Final[Mapping[str, Bounds | Text]] = {
    "server.daemonize": Bounds(high=0, why="a supervisor must see Mongrel2 end"),
    "limits.content_length": Bounds(low=1024),
    "limits.buffer_size": Bounds(low=1024),
    "limits.client_read_retries": _COUNT,
    "limits.header_count": _COUNT,
    "limits.host_name": _COUNT,
    "limits.url_path": _COUNT,
    "limits.handler_targets": Bounds(low=128, why="a broadcast addresses 128 connections in a message"),
    "limits.handler_stack": Bounds(low=32_768),
    "limits.connection_stack_size": Bounds(low=32_768),
    "limits.fdtask_stack": Bounds(low=32_768),
    "limits.dir_send_buffer": _COUNT,
    "limits.dir_max_path": _COUNT,
    "limits.mime_ext_len": _COUNT,
    "limits.proxy_read_retries": _COUNT,
    "limits.proxy_read_retry_warn": _COUNT,
    "limits.tick_timer": _COUNT,
    "limits.min_ping": Bounds(),
    "limits.min_read_rate": Bounds(),
    "limits.min_write_rate": Bounds(),
    "limits.kill_limit": Bounds(low=2, why="with less every connection is killed within a second"),
    "upload.stream": _SWITCH,
    "upload.temp_store": Text("it must end in XXXXXX"),
    "upload.temp_store_mode": Text("an octal mode such as 0600"),
    "download.flow_control": _SWITCH,
    "no_clobber_xff": _SWITCH,
    "request.relaxed": _SWITCH,
    "net.tcp_keepalive": _SWITCH,
    "disable.access_logging": _SWITCH,
    "superpoll.max_fd": Bounds(low=64, high=65_536),
    "superpoll.hot_dividend": Bounds(low=2, why="Mongrel2 does not start with 1"),
    "zeromq.threads": Bounds(low=1, high=1, why="more are not supported"),
    "certdir": Text("it must end in /"),
    "ssl_ciphers": Text("cipher names separated by blanks"),
    "ssl.ca_chain": Text("the path of a PEM file"),
    "ssl.verify_optional": _SWITCH,
    "ssl.verify_required": _SWITCH,
}

# RSA and ECDSA certificates; authenticated encryption only, which also shuts out TLS 1.0 and 1.1,
# because Mongrel2 has no setting for the oldest version.
CIPHERS: Final = (
    "TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384",
    "TLS-ECDHE-RSA-WITH-AES-256-GCM-SHA384",
    "TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256",
    "TLS-ECDHE-RSA-WITH-CHACHA20-POLY1305-SHA256",
    "TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256",
    "TLS-ECDHE-RSA-WITH-AES-128-GCM-SHA256",
)

DEFAULTS: Final[Mapping[str, SettingValue]] = {
    "server.daemonize": 0,
    "limits.buffer_size": 16_384,
    "limits.client_read_retries": 100,
    # Exactly the size of the input buffer for chunked uploads: when an upload begins, the buffer is cut
    # to this for one with Content-Length, to 103,424 bytes for one in chunks, full or not. With any
    # other value uploads of both kinds on one connection arrive with foreign bytes in them: 20 of 30
    # conversations with 65,536, all with 131,072, none with this.
    "limits.content_length": 103_424,
    "superpoll.hot_dividend": 2,
    "net.tcp_keepalive": 1,
    "no_clobber_xff": 1,
    "request.relaxed": 1,
    "disable.access_logging": 1,
    "upload.stream": 1,
    "download.flow_control": 1,
}


def tls_settings(certdir: str) -> dict[str, SettingValue]:
    """Return what a TLS server needs besides ``use_ssl``; certdir ends in ``/``."""
    return {"certdir": certdir, "ssl_ciphers": " ".join(CIPHERS)}


def check_settings(settings: Mapping[str, SettingValue], source: str) -> None:
    """Raise ConfigError for an unknown setting, a value out of bounds, or two that do not fit."""
    for key, value in settings.items():
        check_setting(key, value, source)
    _check_upload_buffers(settings, source)


def check_setting(key: str, value: SettingValue, source: str) -> None:
    """Raise ConfigError for an unknown setting or a value out of bounds."""
    rule = KNOWN.get(key)
    if rule is None:
        raise ConfigError(key, value, "Mongrel2 has no such setting", _nearest(key), source)
    if isinstance(rule, Bounds):
        _check_number(key, value, rule, source)
    else:
        _check_string(key, value, rule, source)


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, KNOWN, 1)
    return f"did you mean {near[0]}?" if near else "see the list of settings in the reference"


def _check_number(key: str, value: SettingValue, rule: Bounds, source: str) -> None:
    remedy = f"use a whole number from {rule.low} to {rule.high}"
    if type(value) is not int:
        raise ConfigError(key, value, "this setting is a whole number", remedy, source)
    if not rule.low <= value <= rule.high:
        raise ConfigError(key, value, rule.why or "out of bounds", remedy, source)


def _check_string(key: str, value: SettingValue, rule: Text, source: str) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(key, value, "this setting is a text", rule.why, source)
    broken = (
        (key == "certdir" and not value.endswith("/"))
        or (key == "upload.temp_store" and not value.endswith("XXXXXX"))
        or (key == "upload.temp_store_mode" and set(value) - set("01234567"))
    )
    if broken:
        raise ConfigError(key, value, "Mongrel2 cannot use it", rule.why, source)


def _check_upload_buffers(settings: Mapping[str, SettingValue], source: str) -> None:
    body = settings.get("limits.content_length", 20_480)
    head = settings.get("limits.buffer_size", 4_096)
    if isinstance(body, int) and isinstance(head, int) and body < head:
        # Mongrel2 shrinks the input buffer to content_length when an upload starts, full or not.
        problem = f"an upload loses bytes when this is less than limits.buffer_size ({head})"
        raise ConfigError("limits.content_length", body, problem, f"use {head} or more", source)
