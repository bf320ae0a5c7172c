"""The registered users: the display name of each, and whether the user may score.

A user who is not registered has no name and is active. The rules may require registration; then this user can't score.

Invariants:
- `_ids`, `_names` and `_active` have the same length, and `_slots[_ids[i]] == i`.
- `_ids` only grows, because images share it (see `engine.image`). A user who is erased leaves a copy of it.
"""

from __future__ import annotations

import msgspec

from engine.image import UsersImage


class User(msgspec.Struct, frozen=True, gc=False):
    """A registered user. An inactive one may not score, and is hidden on every board."""

    display_name: str | None
    active: bool


class Users:
    """userId → `User`, in the order of registration. Every operation is O(1)."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._ids: list[str] = []
        self._names: list[str | None] = []
        self._active = bytearray()

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, user_id: str) -> User | None:
        """Give a registered user, None for any other."""
        slot = self._slots.get(user_id)
        if slot is None:
            return None
        return User(self._names[slot], bool(self._active[slot]))

    def name(self, user_id: str) -> str | None:
        slot = self._slots.get(user_id)
        return None if slot is None else self._names[slot]

    def put(self, user_id: str, user: User) -> None:
        """Register a user, or replace a registered one."""
        slot = self._slots.get(user_id)
        if slot is None:
            self._slots[user_id] = len(self._ids)
            self._ids.append(user_id)
            self._names.append(user.display_name)
            self._active.append(user.active)
        else:
            self._names[slot] = user.display_name
            self._active[slot] = user.active

    def forget(self, user_id: str) -> None:
        """Take a user out of the register, if there. The user of the last slot takes the free one. O(users)."""
        slot = self._slots.pop(user_id, None)
        if slot is None:
            return
        self._ids = self._ids[:]  # images share the list
        last_id, last_name, last_active = self._ids.pop(), self._names.pop(), self._active.pop()
        if last_id != user_id:
            self._slots[last_id] = slot
            self._ids[slot], self._names[slot], self._active[slot] = last_id, last_name, last_active

    def inactive(self) -> list[str]:
        """List the users who may not score. O(registered users); used at a start only."""
        return [user_id for user_id, active in zip(self._ids, self._active, strict=True) if not active]

    def capture(self) -> UsersImage:
        """Copy what changes in place, and share what only grows. O(registered users): a few ms for a million."""
        return UsersImage(
            count=len(self._ids), user_ids=self._ids, names=self._names.copy(), active=bytes(self._active)
        )

    @classmethod
    def from_image(cls, image: UsersImage, *, owned: bool = False) -> Users:
        """Make the users of an image. `owned`: it is nobody else's (`engine.image`)."""
        users = cls()
        users._ids = image.user_ids if owned else image.user_ids[: image.count]
        users._names = image.names if owned else image.names.copy()
        users._active = bytearray(image.active)
        users._slots = {user_id: slot for slot, user_id in enumerate(users._ids)}
        return users

    def _check(self) -> None:
        assert len(self._ids) == len(self._names) == len(self._active) == len(self._slots)
        for slot, user_id in enumerate(self._ids):
            assert self._slots[user_id] == slot
