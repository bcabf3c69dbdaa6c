"""The command line: one command a file. Only here is anything printed or the environment read.

Importing this loads click and nothing heavy; a command's module is imported when the command is
run, and what that needs of the floors below is imported inside its function, so that `--help`
answers at once. `streams` prints, `output` writes files, `program` turns errors into exit codes.
"""

from pcapdiag.cli.program import main

__all__ = ["main"]
