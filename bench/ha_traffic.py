"""A backend that gives points to a quorum all the time, and measures how long nobody takes them: for `bench.ha_demo`.

    traffic = Traffic(urls, token)
    traffic.start(); traffic.begin()
    traffic.now()                    what was acknowledged, by which node, the longest gap since `begin`
    with traffic.resting():          between two actions: what was acknowledged is all that was applied
        ...

It does what every backend should. It goes where a node says that the leader is, and sends an action again as it is,
until the action is answered.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx

ANSWER_SECONDS_MAX = 1.5
PAUSE_SECONDS = 0.02
AGAIN_SECONDS = 0.05
USERS = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj")


@dataclass(frozen=True)
class Given:
    """What the backend knows. `actions`: how many were acknowledged. `leader`: who took the last, in `epoch`.

    `longest_s` is the longest time without an acknowledgement since `begin`, the present one included; `quiet_s` is
    the present one. `said` is the last answer that was none.
    """

    actions: int = 0
    leader: int | None = None
    epoch: int = 0
    longest_s: float = 0.0
    quiet_s: float = 0.0
    said: str = ""


class Traffic(threading.Thread):
    """See above. A leader is a place in the list of URLs."""

    def __init__(self, urls: Sequence[str], token: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: set[str] = set()
        self._urls = list(urls)
        self._http = httpx.Client(
            timeout=ANSWER_SECONDS_MAX, trust_env=False, headers={"authorization": f"Bearer {token}"}
        )
        self._lock = threading.Lock()
        self._way = threading.Lock()  # held by an action, or by who wants none
        self._given = Given()
        self._last_s = time.monotonic()
        self._at = 0
        self._silent: int | None = None
        self._over = False
        self._run = secrets.token_hex(4)

    def now(self) -> Given:
        """Give what is known now."""
        with self._lock:
            quiet_s = time.monotonic() - self._last_s
            return replace(self._given, quiet_s=quiet_s, longest_s=max(self._given.longest_s, quiet_s))

    def begin(self) -> None:
        """Measure the longest gap from now on; a gap that lasts counts from its beginning."""
        with self._lock:
            self._given = replace(self._given, longest_s=0.0)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Have no action under way in the body. The time counts for no gap."""
        with self._way:
            yield
            with self._lock:
                self._last_s = time.monotonic()

    def end(self) -> None:
        """End after the request that is under way."""
        self._over = True
        if self.is_alive():
            self.join()
        self._http.close()

    def run(self) -> None:
        """Give points until `end`."""
        number = 0
        self._last_s = time.monotonic()
        while not self._over:
            with self._way:
                action = f"{self._run}-{number}"
                body = {"userId": random.choice(USERS), "actionId": action}  # not a secret
                while not self._over and not self._give(body):
                    time.sleep(AGAIN_SECONDS)
            number += 1
            time.sleep(PAUSE_SECONDS)

    def _give(self, body: dict[str, str]) -> bool:
        """Send an action once; say whether it was acknowledged. If not, the next one is sent to another node."""
        try:
            answer = self._http.post(f"{self._urls[self._at]}/scores/increment", json=body)
        except httpx.HTTPError as error:
            self._note_silence(f"no answer ({type(error).__name__})")
            self._silent, self._at = self._at, (self._at + 1) % len(self._urls)
            return False
        if answer.status_code == httpx.codes.OK:
            self._note(body, answer.json())
            return True
        refusal = answer.json()["error"]
        self._note_silence(f"{answer.status_code} {refusal['code']}")
        leader = refusal["details"].get("leader")
        named = self._urls.index(leader) if leader in self._urls else None
        self._at = (self._at + 1) % len(self._urls) if named is None or named == self._silent else named
        return False

    def _note(self, body: dict[str, str], receipt: dict[str, Any]) -> None:
        self._silent = None
        self.acknowledged.add(body["actionId"])
        with self._lock:
            given, now_s = self._given, time.monotonic()
            self._given = Given(
                actions=given.actions + 1,
                leader=self._at,
                epoch=receipt["epoch"],
                longest_s=max(given.longest_s, now_s - self._last_s),
            )
            self._last_s = now_s

    def _note_silence(self, said: str) -> None:
        with self._lock:
            self._given = replace(self._given, said=said)
