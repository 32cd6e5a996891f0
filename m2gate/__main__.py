"""``python -m m2gate``."""

from m2gate.cli import main

main()
