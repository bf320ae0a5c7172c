"""The live channel: frames, editions, viewers, and telling all of them."""
