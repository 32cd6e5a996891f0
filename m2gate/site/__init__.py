"""Mongrel2's configuration: rendered, loaded, read back and compared; certificates."""
