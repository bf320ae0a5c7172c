"""SIGHUP: the configuration is read anew, and what can change without a restart does (`server.settings.reload`).

    signal ──► read file, environment, flags ──► compare ──► load keys ──► apply, without a pause ──► `config_reloaded`
                     └─ a fault: `config_not_reloaded` names the key, and nothing changes ─┘

Rules:
- All or nothing: whatever can fail is done before the first change. Between the changes nobody else runs.
- What differs and needs a restart is named each time, until the restart or until the file is as before.
- A signal that comes before the process serves waits until it does. Signals that come meanwhile count as one.
- A process that was started from a terminal which is gone now was hung up: it ends as by SIGTERM. Otherwise a closed
  terminal would leave a server behind that holds the data directory.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

import structlog
import trio

from engine.errors import ScoreboardError
from server.access.issuers import TrustedIssuer, renewed_keys
from server.node.shutdown import Shutdown
from server.settings.auth import secret_notes
from server.settings.config import Config, ConfigError
from server.settings.environment import dotted
from server.settings.reload import compare

TERMINAL = "/dev/tty"

Read = Callable[[], Config]
"""Reads the configuration as the start did. Raises `ConfigError`."""

log = structlog.get_logger()


class Reloads:
    """Hears SIGHUP from the start on. `config` is the one that counts; `read` is None where nothing can be read."""

    def __init__(self, config: Config, read: Read | None) -> None:
        self.config = config
        self._read = read
        self._issuers: Sequence[TrustedIssuer] = ()
        self._apply: Callable[[Config], None] = lambda _config: None
        self._served = trio.Event()

    def serve(self, issuers: Sequence[TrustedIssuer], apply: Callable[[Config], None]) -> None:
        """Reload from now on: the keys of these issuers, and by `apply` everything else."""
        self._issuers, self._apply = issuers, apply
        self._served.set()

    async def listen(
        self, shutdown: Shutdown, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Wait for signals until cancelled."""
        began_at_terminal = has_terminal()
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if began_at_terminal and not has_terminal():
                    log.info("hung_up", reason="the terminal is gone")
                    shutdown.wanted.set()
                    continue
                await self._served.wait()
                await self.reload()

    async def reload(self) -> None:
        """Read the configuration, and take over what can be."""
        if self._read is None:
            log.warning("config_not_reloaded", key="", reason="this process has no configuration to read")
            return
        try:
            changes = compare(self.config, await trio.to_thread.run_sync(self._read))
            keys = renewed_keys(self._issuers, changes.config.auth)
        except ConfigError as fault:
            log.error("config_not_reloaded", key=fault.key, reason=fault.message)
            return
        except ScoreboardError as fault:
            log.error("config_not_reloaded", key="", reason=str(fault))
            return
        changed = list(changes.changed)
        for above, known, new in keys:
            if known.replace(new) and not any(name.startswith(dotted((above, "jwt_"))) for name in changed):
                changed.append(dotted((above, "jwt_public_key_file")))  # the same file, with another key
        self.config = changes.config
        self._apply(changes.config)
        for key, note in secret_notes(changes.config.auth):
            log.warning("configuration", key=key, note=note)
        tell = log.warning if changes.needs_restart else log.info
        tell("config_reloaded", changed=changed, needs_restart=changes.needs_restart)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
