"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.seeds import IN_CI

# No deadline: correctness does not depend on how busy the machine is. A failure prints the blob that reproduces it.
# Where `CI` is set, the examples are the same each time: `tests.seeds` says why.
settings.register_profile(
    "house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow], derandomize=IN_CI
)
settings.load_profile("house")
