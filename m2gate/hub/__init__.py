"""Channels, subscribers and items: calls in, messages out; no sockets and no clock of its own."""
