"""What every lane speaks: messages, the request parser, connections, admission, WebSocket frames."""
