"""`scoreboard config check`: check a configuration before a restart."""

from __future__ import annotations

from pathlib import Path

import click

from server.access.directory_keys import has_keys
from server.access.issuers import trusted_issuers
from server.cli.support import config_options, read_config, say
from server.settings.auth import secret_notes
from server.settings.config import Config


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@config_options
def check(data_dir: Path | None, config_file: Path | None) -> None:
    """Read file, environment and flags as `serve` would, and touch nothing; exit code 2 if they are not good."""
    config = read_config(config_file, data_dir)
    check_keys(config)
    for key, note in secret_notes(config.auth):
        say(f"Warning: {key}: {note}")
    click.echo("the configuration is good")


def check_keys(config: Config) -> None:
    """Load the key that a start would load, or refuse. One that a start would make or fetch is left to it."""
    if not config.auth.uses_signing_key or has_keys(config.data_dir):
        trusted_issuers(config)
