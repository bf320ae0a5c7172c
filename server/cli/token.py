"""`scoreboard token`: mint a bearer token with the key that the leader verifies with.

It works while the leader runs, and before its first start: the first process that needs a signing key makes it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import jwt

from engine.disk import RealDisk
from server.access.minting import mint
from server.access.signing_key import SIGNING_KEY_FILE
from server.cli.support import Duration, config_options, json_option, print_json, read_config, say
from server.settings.auth import SCOPES


@click.command()
@click.option("--sub", required=True, metavar="NAME", help="Who the token stands for; the log calls it the caller.")
@click.option(
    "--scope", default="scores:write", show_default=True, help=f"Separated by spaces, of {', '.join(sorted(SCOPES))}."
)
@click.option("--user", metavar="USERID", help="Only this user may be incremented with the token.")
@click.option("--ttl", "ttl_s", type=Duration(), default="1h", show_default=True, help="How long it is good for.")
@config_options
@json_option
def token(
    sub: str, scope: str, user: str | None, ttl_s: int, data_dir: Path | None, config_file: Path | None, as_json: bool
) -> None:
    """Mint a token and print it, alone on a line; as JSON with its claims."""
    if not scope.split():
        raise click.BadParameter("name at least one; without any a token is good for nothing", param_hint="--scope")
    config = read_config(config_file, data_dir)
    disk, key = RealDisk(), f"{config.data_dir}/{SIGNING_KEY_FILE}"
    is_there = disk.exists(key)
    minted = mint(config, sub=sub, scopes=scope.split(), user=user, ttl_s=ttl_s)
    if as_json:
        claims = jwt.decode(minted, options={"verify_signature": False})
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        print_json({"token": minted, "expiresAt": expires_at, "claims": claims})
    else:
        click.echo(minted)
    if not is_there and disk.exists(key):
        # That is right before the first start. Afterwards --data-dir is most likely wrong.
        say(f"Note: there was no signing key in {config.data_dir!r}, so a new one was made.")
