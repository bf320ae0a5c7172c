"""The command `scoreboard`: the table of its verbs. Each has a module of its own; `support` has what they share.

A module's function has the name of its verb, or the one behind the colon.

Exit codes, for scripts: 0 all is well · 1 something is wrong (damage found, a verification failed, the disk failed
while serving) · 2 wrong usage or configuration · 3 the data directory is in use by another process.
"""

from __future__ import annotations

import click

from server.cli.support import CommandGroup

VERBS = {
    "serve": "server.cli.serve",
    "replica": "server.cli.replica",
    "promote": "server.cli.promote",
    "demote": "server.cli.demote",
    "quorum": "server.cli.quorum",
    "step-down": "server.cli.step_down:step_down",
    "token": "server.cli.token",
    "watch": "server.cli.watch",
    "log": "server.cli.log",
    "snapshot": "server.cli.snapshot",
    "restore": "server.cli.restore",
    "erase": "server.cli.erase",
    "export": "server.cli.export",
    "import": "server.cli.imports:import_scores",
    "config": "server.cli.config",
}


@click.command(cls=CommandGroup, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="scoreboard", message="scoreboard %(version)s")
def main() -> None:
    """A durable live scoreboard: serve it, watch it, and look after its data."""


if __name__ == "__main__":
    main()
