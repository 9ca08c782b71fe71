"""The command line. Each command is a thin layer over a function of the library."""

from fewbits.cli.app import app, main

__all__ = ["app", "main"]
