"""The command line: it parses, calls and prints. Heavy modules load inside the commands."""

from emodarts.cli.app import main

__all__ = ["main"]
