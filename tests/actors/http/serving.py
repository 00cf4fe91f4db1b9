"""The application behind a real server on a free port, for what an in-process client cannot do: streams without end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI


@contextlib.contextmanager
def served(app: FastAPI, port: int = 0, *, websockets: bool = False) -> Iterator[str]:
    """Serve `app` on a loopback port (0: a free one) in a thread; gives its URL."""
    listener = socket.create_server(("127.0.0.1", port))
    ws = "websockets-sansio" if websockets else "none"
    config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, ws=ws)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        host, port = listener.getsockname()
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
        assert not thread.is_alive()
