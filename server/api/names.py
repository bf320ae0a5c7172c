"""Which display names a caller sees: those of the public, or all (`[privacy] names`).

    sight = await names.of(request, caller)         before the state is read: it may wait for keys
    entries_of(rows, names.shown(sight))

Rules:
- A token with a scope of WHOLE_NAMES sees all names, and a token of one user that user's. Where reads are public no
  token was looked at before, so it is done here. One that does not verify counts as none there, as for every read of
  the public.
- Answers that differ by caller have different ETags.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from server.access.auth import ANYBODY, Principal
from server.api.dependencies import Dependencies
from server.api.routes import WHOLE_NAMES
from server.http.messages import Request
from server.live.names import Names, names_for


class Sight(msgspec.Struct, frozen=True):
    """Whose names a caller sees whole: those of all users, or of the user `own`."""

    all: bool
    own: str | None = None


_PUBLIC = Sight(all=False)
_ALL = Sight(all=True)


class CallerNames:
    """Gives each caller the names that it may see."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._scoreboard = dependencies.scoreboard
        self._authenticator = dependencies.authenticator
        self._form = dependencies.names

    async def of(self, request: Request, caller: Principal) -> Sight:
        """Say what a caller sees."""
        if self._form == "shown":
            return _ALL
        if caller is ANYBODY and (authorization := request.headers.get("authorization")) is not None:
            found = await self._authenticator.authenticate(authorization)
            if isinstance(found, Principal):
                caller = found
        return self._of(caller)

    def at_once(self, request: Request, caller: Principal) -> Sight | None:
        """Say the same of a caller whose token was verified; None if that must be waited for."""
        if self._form == "shown":
            return _ALL
        if caller is ANYBODY and "authorization" in request.headers:
            return None
        return self._of(caller)

    def _of(self, caller: Principal) -> Sight:
        if caller is ANYBODY:
            return _PUBLIC
        return _ALL if caller.may(WHOLE_NAMES) else Sight(all=False, own=caller.user)

    def tag(self, sight: Sight) -> str:
        """Give what tells the ETags of different names apart."""
        if self._form == "shown":
            return ""
        whose = "all" if sight.all else "public" if sight.own is None else sha256(sight.own.encode()).hexdigest()[:16]
        return f"-{self._form}-{whose}"

    def shown(self, sight: Sight) -> Names:
        """Give the names of now."""
        return names_for(self._scoreboard.users, "shown" if sight.all else self._form, sight.own)
