"""Submitting a command for which something must be read from the log first.

    outcome = await submit_gathered(make, submit, audit, "actionIds")            `make` reads, and gives the command

Rules:
- If a segment was compressed or removed while it was read, all of it is done again, up to ATTEMPTS times. So it is if
  `is_void` says that the outcome was decided too late.
- A log that is damaged where it must be read changes nothing. It is told, with file and offset.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from engine.commands import Command, Outcome
from engine.disk import FileMissing
from engine.errors import LogDamaged, NoLongerKept, Overloaded
from server.api.audit import Audit
from server.http.messages import Refused

ATTEMPTS = 3

Submit = Callable[[Sequence[Command]], Awaitable[list[Outcome]]]
"""Has commands decided and made durable."""


async def submit_gathered(
    make: Callable[[], Awaitable[Command]],
    submit: Submit,
    audit: Audit,
    field: str,
    is_void: Callable[[Outcome], bool] = lambda _: False,
) -> Outcome:
    """Submit what `make` gathers. `field` is at fault if the log is damaged. Raises `Refused`, `Overloaded`."""
    outcome: Outcome | None = None
    for _ in range(ATTEMPTS):
        try:
            [outcome] = await submit([await make()])
        except (FileMissing, NoLongerKept):
            outcome = None
        except LogDamaged as damage:
            audit.log_unreadable(damage)
            message = f"The log can't be read from seq {damage.seq} on, so nothing was changed. The operator was told."
            raise Refused(409, "CONFLICT", message, {"field": field}) from damage
        if outcome is not None and not is_void(outcome):
            break
    if outcome is None:
        raise Overloaded("the log is being tidied")
    return outcome
