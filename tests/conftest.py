"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: correctness does not depend on how busy the machine is. A failure prints the blob that reproduces it.
settings.register_profile("house", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
