"""`scoreboard replica`: follow a leader, or another replica, and serve reads and viewers.

Standard output, signals and exit codes are those of `serve`. Without a data directory the replica uses a temporary one,
which is removed at the end. Then it begins anew each time and can't be promoted.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import click
import msgspec
import trio

from server.cli.support import BadUsage, bind_option, config_options, print_lines, read_config, read_token, state_bar
from server.node import start
from server.node.start import FollowOptions
from server.replication.sharding import Shard, parse_shard
from server.settings.config import Config


class ShardType(click.ParamType[Shard]):
    """A shard, written K/N."""

    name = "K/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        try:
            return parse_shard(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@config_options
@click.option("--leader", metavar="URL", help="The node to follow, such as http://leader.example:8080.")
@bind_option
@click.option("--shard", type=ShardType(), help="Hold only the boards of this shard, in memory.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False), help="A token of scope log:read.")
def replica(
    data_dir: Path | None,
    config_file: Path | None,
    leader: str | None,
    bind: tuple[str, ...],
    shard: Shard | None,
    token_file: Path | None,
) -> None:
    """Run a replica until SIGTERM or SIGINT."""
    read_token(token_file, tell=False)  # what is no token is refused here: the leader would refuse it again and again
    reread = partial(read_config, config_file, data_dir, bind, leader=leader, token_file=token_file)
    config = reread()
    durable = data_dir is not None or config.data_dir != Config().data_dir
    if shard is not None and durable:
        raise BadUsage(
            f"--shard goes without a data directory ({config.data_dir!r}): a shard holds parts of the log, "
            "from which nobody could recover or be promoted, so it keeps nothing on disk"
        )
    bar = partial(state_bar, "starting") if sys.stderr.isatty() else None
    options = FollowOptions(shard, durable)

    def ready(*urls: str) -> None:
        print_lines([f"scoreboard ready on {' '.join(urls)}"])

    if durable:
        sys.exit(trio.run(start.follow, config, options, ready, bar, reread))
    with tempfile.TemporaryDirectory(prefix="scoreboard-replica-") as directory:

        def read() -> Config:
            return msgspec.structs.replace(reread(), data_dir=f"{directory}/data")

        code = trio.run(start.follow, read(), options, ready, bar, read)
    sys.exit(code)
