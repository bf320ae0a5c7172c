"""`scoreboard config check`: check a configuration before a restart."""

from __future__ import annotations

from pathlib import Path

import click

from server.access.keys import SIGNING_KEY_FILE, fixed_key
from server.cli.support import config_options, read_config
from server.settings.config import Config


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@config_options
def check(data_dir: Path | None, config_file: Path | None) -> None:
    """Read file, environment and flags as `serve` would, and touch nothing; exit code 2 if they are not good."""
    check_keys(read_config(config_file, data_dir))
    click.echo("the configuration is good")


def check_keys(config: Config) -> None:
    """Load the key that a start would load, or refuse. A key that a start would make or fetch is not checked."""
    auth = config.auth
    if auth.jwt_public_key_file or auth.jwt_secret or Path(config.data_dir, SIGNING_KEY_FILE).exists():
        fixed_key(config)
