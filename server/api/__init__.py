"""From a request to an answer, whichever lane it came in by."""
