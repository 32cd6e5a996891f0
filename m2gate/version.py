"""The version; it imports nothing, so that packaging and ``m2gate version`` read it at no cost."""

__version__ = "0.3.0"
