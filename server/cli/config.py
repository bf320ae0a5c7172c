"""`scoreboard config check`: say whether a configuration is good before a restart depends on it."""

from __future__ import annotations

from pathlib import Path

import click

from server.cli.support import config_options, read_config


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@config_options
def check(data_dir: Path | None, config_file: Path | None) -> None:
    """Read file, environment and flags as `serve` would, and touch nothing; exit code 2 if they are not good."""
    read_config(config_file, data_dir)
    click.echo("the configuration is good")
