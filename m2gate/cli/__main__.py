"""``python -m m2gate.cli``."""

from m2gate.cli import main

main()
