"""The peer in C for the fan-out bench: nchan, a module of nginx for channels with publishers and subscribers.

One worker. A POST publishes the message, and every viewer by WebSocket gets it. It is set up to do what this project
does: it pings as often, keeps one message, and writes no access log. Its processor time and memory are those of the
master and the worker. In each turn the POST counts too, as that of this project does.
"""

from __future__ import annotations

import getpass
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.servers import START_SECONDS_MAX, Missing, free_port, fresh_directory, running, wait_ready
from bench.viewers import FILES, ViewerLoad
from bench.viewers_peers import MESSAGE, Caller, System

NAME = "nchan (nginx, C)"
NGINX = "/usr/sbin/nginx"
MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

CONFIG = """
load_module {module};
user {user};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_timeout 1h;
        keepalive_requests 1000000;
        nchan_channel_id main;
        location = /publish {{
            nchan_publisher http;
            nchan_message_buffer_length 1;
        }}
        location = /ws/scoreboard {{
            nchan_subscriber websocket;
            nchan_subscriber_first_message newest;
            nchan_websocket_ping_interval 25;
        }}
    }}
}}
"""


@contextmanager
def nchan_peer(processor: int, load_processor: int) -> Iterator[list[System]]:
    """Run nginx with nchan. Raises `Missing`."""
    if shutil.which(NGINX) is None or not MODULE.exists():
        raise Missing("apt-get install nginx libnginx-mod-nchan")
    with fresh_directory("nchan") as directory:
        port, config = free_port(), directory / "nginx.conf"
        fields = {"module": MODULE, "user": getpass.getuser(), "files": FILES, "directory": directory, "port": port}
        config.write_text(CONFIG.format(**fields), encoding="utf-8")
        with running([NGINX, "-c", str(config), "-p", str(directory)], processor) as master:
            wait_ready(port)
            pids = (master, _worker(master))
            with ViewerLoad(port, load_processor, "ordinal") as viewers:
                yield [System(NAME, pids, viewers, Publisher(port).publish)]


class Publisher:
    """A backend that publishes the message over one connection."""

    def __init__(self, port: int) -> None:
        self._caller = Caller(port)
        body = MESSAGE.read_bytes()
        head = f"POST /publish HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n"
        self._request = f"{head}Content-Type: application/json\r\n\r\n".encode() + body
        self._sent = 0

    def publish(self) -> int:
        """Publish the message; give how many that makes."""
        self._sent += 1
        answer = self._caller.ask(self._request)
        assert answer.startswith((b"HTTP/1.1 201 ", b"HTTP/1.1 202 ")), answer  # nobody, or somebody was there
        return self._sent


def _worker(master: int) -> int:
    """Wait for nginx's worker; give its id."""
    end = time.monotonic() + START_SECONDS_MAX
    while not (children := Path(f"/proc/{master}/task/{master}/children").read_text(encoding="ascii").split()):
        if time.monotonic() > end:
            raise TimeoutError("nginx has no worker")
        time.sleep(0.01)
    return int(children[0])
