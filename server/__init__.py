"""HTTP, WebSocket, configuration and the command line around the engine; see README.md in this folder."""
