"""The state at an exact seq, in a file: taking, keeping, verifying and restoring it; see README.md in this folder."""
