"""Codecs: functions from bytes to records and back; no sockets, no clock, no logging."""
