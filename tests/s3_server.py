"""A real server that speaks S3, on 127.0.0.1: moto's, in this process; it counts what it is asked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class S3Server:
    """A server that runs.

    Attributes:
        env: with which boto3 finds it, here and in other processes.
        requests: how often each (method, path) was asked; the path without what follows "?".
    """

    def __init__(self, moto: Any) -> None:
        self._app, self._lock = moto.DomainDispatcherApplication(moto.create_backend_app), threading.Lock()
        self.requests: Counter[tuple[str, str]] = Counter()

        class Quiet(moto.MotoRequestHandler):  # type: ignore[misc]
            def log_request(self, *_: Any) -> None: ...

        make_server = pytest.importorskip("werkzeug.serving").make_server
        self._server = make_server("127.0.0.1", 0, self._counted, threaded=True, request_handler=Quiet)
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _counted(self, environ: dict[str, Any], start_response: Any) -> Any:
        with self._lock:
            self.requests[environ["REQUEST_METHOD"], environ["PATH_INFO"]] += 1
        return self._app(environ, start_response)


@contextmanager
def s3_server(bucket: str) -> Iterator[S3Server]:
    """Run a server with an empty bucket; boto3 is pointed at it. Skips the test where there is none."""
    moto = pytest.importorskip("moto.moto_server.werkzeug_app", reason='no S3 server: pip install "moto[server]"')
    boto3 = pytest.importorskip("boto3")
    server = S3Server(moto)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.env.items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield server
    finally:
        server.close()
