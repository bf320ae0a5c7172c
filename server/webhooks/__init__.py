"""Webhooks: other programs are told what happened, signed, in order, and at least once (`WEBHOOKS.md`)."""
