"""Runs an App: greenlet pool, transports, supervisor, reload."""
