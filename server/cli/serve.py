"""`scoreboard serve`: run a leader, say when it is ready, and on request welcome a newcomer.

Standard output gets the ready line, so a script can wait for it and read the port. A token is printed only with
--welcome, for a person at a terminal: output that ends up in a log must never have one.
"""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path

import click
import trio

from server.access.minting import mint, minting_fault
from server.api.decoding import DEFAULT_REASON
from server.cli.support import bind_option, config_options, print_lines, read_config, state_bar
from server.http.target import DEFAULT_BOARD
from server.node import start, start_member
from server.settings.config import Config

WELCOME_TOKEN_SECONDS = 3600


@click.command()
@config_options
@bind_option
@click.option("--quorum", is_flag=True, help="Serve as a node of a quorum: its log is the stream of [quorum].")
@click.option("--welcome", is_flag=True, help="Print the live page's address and a curl with a fresh token.")
def serve(data_dir: Path | None, config_file: Path | None, bind: tuple[str, ...], quorum: bool, welcome: bool) -> None:
    """Run the leader, or with --quorum a node that may lead, until SIGTERM or SIGINT."""
    reread = partial(read_config, config_file, data_dir, bind)
    config = reread()

    def ready(*urls: str) -> None:
        lines = [f"scoreboard ready on {' '.join(urls)}"]
        if welcome:
            lines.append(welcome_text(config, urls[0]))
        print_lines(lines)

    bar = partial(state_bar, "recovering") if sys.stderr.isatty() else None
    run = start_member.serve_member if quorum else start.serve
    sys.exit(trio.run(run, config, ready, bar, reread))


def welcome_text(config: Config, url: str) -> str:
    """Say where the live page is and how to change a score, with a token that is valid for an hour."""
    page = f"  Live page   {url}/\n  API         {url}/docs\n"
    if fault := minting_fault(config):
        return f"\n{page}\n  No token is shown: {fault.message}.\n"
    increment = _increment(config)
    if increment is None:
        return f"\n{page}"
    bearer = mint(config, sub="welcome", scopes=["scores:write"], user=None, ttl_s=WELCOME_TOKEN_SECONDS)
    return (
        f"\n{page}\n  Give Alice her points, again and again; the token is good for an hour:\n\n"
        f"curl -sS -w '\\n' {url}/scores/increment -H 'Content-Type: application/json' "
        f"-H 'Authorization: Bearer {bearer}' -d {increment}\n"
    )


def _increment(config: Config) -> str | None:
    """Give the body of an increment as a shell word that makes a new actionId each time.

    None if each reason of the board needs a value: the token of the welcome has no scope for that.
    """
    board_id = DEFAULT_BOARD if DEFAULT_BOARD in config.boards else next(iter(config.boards))
    points = config.boards[board_id].points
    fixed = {reason: worth for reason, worth in points.items() if isinstance(worth, int)}
    if not fixed:
        return None
    reason = DEFAULT_REASON if DEFAULT_REASON in fixed else max(fixed, key=lambda each: fixed[each] > 0)
    body = {"userId": "alice", "boardId": board_id, "reason": reason, "actionId": "try-"}
    if board_id == DEFAULT_BOARD:
        del body["boardId"]
    if reason == DEFAULT_REASON:
        del body["reason"]
    opening, closing = json.dumps(body)[:-2], '"}'
    return f"{shlex.quote(opening)}$(date +%s%N){shlex.quote(closing)}"
