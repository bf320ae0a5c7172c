"""What every lane uses: messages, the request parser, connections, admission, WebSocket frames."""
