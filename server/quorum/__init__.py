"""The log on a replicated stream: nodes of a quorum, which elect their leader by the stream itself."""
