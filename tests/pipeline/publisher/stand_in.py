"""The service's side for tests: PUT of models and key frames, checked as the service checks them."""

from __future__ import annotations

import http.server
import json
import threading
from types import TracebackType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pipeline.errors import LimpidError
from pipeline.models.load import build
from pipeline.store import keyframes, modelfile
from pipeline.store.keyframes import KeyFrame
from pipeline.store.modelfile import ModelHeader


class Service:
    """Answers on a port of 127.0.0.1.

    Attributes:
        models, key_frames: what was taken, in order.
        answer: status of what is said to models from now on (200: taken).
        asked: methods and paths of all requests.
        most_at_once: requests that were under way beside each other.
    """

    def __init__(self, public_key: Ed25519PublicKey, *, token: str = "", port: int = 0) -> None:
        self.models: list[ModelHeader] = []
        self.key_frames: list[KeyFrame] = []
        self.answer = 200
        self.asked: list[str] = []
        self.most_at_once = 0
        self.changed = threading.Condition()
        self._now = 0
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                service._now += 1
                service.most_at_once = max(service.most_at_once, service._now)
                try:
                    status, body = self._taken(self.rfile.read(int(self.headers["Content-Length"])))
                finally:
                    service._now -= 1
                with service.changed:
                    service.asked.append(f"PUT {self.path}")
                    service.changed.notify_all()
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _taken(self, data: bytes) -> tuple[int, dict[str, object]]:
                if token and self.headers["Authorization"] != f"Bearer {token}":
                    return 401, {"detail": "who are you?"}
                try:
                    if self.path.endswith("/key-frames"):
                        service.key_frames.append(keyframes.loads(data, where="key frame"))
                        return 200, {}
                    header, state = modelfile.loads(data, where="model")
                    modelfile.check_signature(header, state, public_key, where="model")
                    build(header, state, where="model")
                except LimpidError as error:
                    return 422, {"detail": str(error)}
                if service.answer != 200:
                    return service.answer, {"detail": "no"}
                service.models.append(header)
                return 200, {"version": header.version, "psnr_before": 30.0, "psnr_after": 30.5}

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
