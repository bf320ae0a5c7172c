"""`scoreboard step-down`: have the leader of a quorum let another node lead."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from server.api.routes import STEP_DOWN_PATH
from server.cli.asking import post_node
from server.cli.support import chosen_token, json_option, print_json, read_token, token_options


class _Done(msgspec.Struct):
    """The answer of a leader that stepped down."""

    epoch: int
    seq: int


@click.command(name="step-down")
@click.option("--url", metavar="URL", required=True, help="The leader's address.")
@token_options
@json_option
def step_down(url: str, token_file: Path | None, token: str | None, as_json: bool) -> None:
    """Let another node of the quorum lead. It takes a token of scope admin. Nothing that was acknowledged is lost."""
    text, file = chosen_token(token, token_file)
    done = post_node(url, STEP_DOWN_PATH, read_token(file) or text, _Done)
    if as_json:
        print_json({"epoch": done.epoch, "seq": done.seq})
    else:
        click.echo(f"stepped down: epoch {done.epoch} ended with seq {done.seq}")
