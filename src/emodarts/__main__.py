"""``python -m emodarts``."""

from emodarts.cli import main

main()
