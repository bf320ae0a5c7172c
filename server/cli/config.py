"""`scoreboard config check`: check a configuration before a restart, and print what it comes to."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from server.access.directory_keys import has_keys
from server.access.issuers import trusted_issuers
from server.cli.support import config_options, environment, gather_settings, json_option, print_json, print_table, say
from server.quorum.nats_credentials import read_credentials
from server.quorum.stream import StreamRefused
from server.settings.auth import secret_notes
from server.settings.config import Config, ConfigError, build
from server.settings.effective import Setting, effective
from server.settings.environment import dotted, service_links
from server.settings.given import SECRET_KEYS
from server.settings.secrecy import open_to_others


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@config_options
@json_option
def check(data_dir: Path | None, config_file: Path | None, as_json: bool) -> None:
    """Read file, environment and flags as `serve` would, and touch nothing; exit code 2 if they are not good.

    Prints every key with its value and where that was set. Secrets are not shown.
    """
    given = gather_settings(config_file, data_dir)
    checked = build(given)
    check_keys(checked)
    settings = list(effective(checked, given))
    warnings = list(warnings_of(checked, settings))
    for warning in warnings:
        say(f"Warning: {warning}")
    if as_json:
        print_json(
            {
                "good": True,
                "settings": {setting.key: _fields(setting) for setting in settings},
                "warnings": warnings,
                "passedOver": service_links(environment()),
            }
        )
        return
    columns = ("key", "value", "source")
    print_table(
        columns, [(each.key, _written(each.value), f"{each.source} {each.origin}".strip()) for each in settings]
    )
    click.echo("the configuration is good")


def check_keys(config: Config) -> None:
    """Load the keys that a start would load, or refuse. One that a start would make or fetch is left to it."""
    if not config.auth.uses_signing_key or has_keys(config.data_dir):
        trusted_issuers(config)
    if config.quorum.credentials_file:
        try:
            read_credentials(config.quorum.credentials_file)
        except StreamRefused as refused:
            raise ConfigError(refused.key, f"{refused.what} {refused.remedy}".strip()) from refused


def warnings_of(config: Config, settings: list[Setting]) -> list[str]:
    """Say which files with secrets others may read, and what is odd about the secrets."""
    secrets = {dotted(key) for key in SECRET_KEYS}
    if config.quorum.servers_have_secrets:
        secrets.add("quorum.servers")
    files = {setting.origin: setting.key for setting in settings if setting.key in secrets and setting.source == "file"}
    if config.auth.jwt_secret_file:
        files[config.auth.jwt_secret_file] = "auth.jwt_secret_file"
    if config.replication.token_file:
        files[config.replication.token_file] = "replication.token_file"
    for name in ("credentials_file", "key_file"):
        if path := getattr(config.quorum, name):
            files[path] = f"quorum.{name}"
    for number, hook in enumerate(config.webhooks):
        if hook.secret_file:
            files[hook.secret_file] = f"webhooks[{number}].secret_file"
    faults = {path: open_to_others(path) for path in files}
    told = [f"{files[path]}: {path}: {fault}" for path, fault in faults.items() if fault is not None]
    return told + [f"{key}: {note}" for key, note in secret_notes(config.auth)]


def _fields(setting: Setting) -> dict[str, object]:
    origin = {"origin": setting.origin} if setting.origin else {}
    return {"value": setting.value, "source": setting.source, **origin}


def _written(value: object) -> str:
    return msgspec.json.encode(value).decode()
