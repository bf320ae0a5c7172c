"""The table of attacks."""

from __future__ import annotations

from tests.hostile.crowds import CROWDS
from tests.hostile.requests import REQUESTS
from tests.hostile.slow import SLOW
from tests.hostile.tokens import TOKENS
from tests.hostile.viewers import VIEWERS

ATTACKS = (*SLOW, *CROWDS, *REQUESTS, *VIEWERS, *TOKENS)
