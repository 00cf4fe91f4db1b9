"""The peers in OpenCV 4's own dnn module, as people run them, in a process and environment of its own.

OpenCV 5, which Limpid uses, has lost dnn_superres. Made once by
    python -m venv bench-out/venv-opencv4
    bench-out/venv-opencv4/bin/pip install "opencv-contrib-python-headless>=4.10,<4.11" "numpy<2"
This file is both sides: `OpenCvPeers` here, `serve` there (it imports nothing of Limpid).
A request is a line "PATH WIDTH HEIGHT"; the answer is the CPU ms of one forward pass, one thread.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

PYTHON = Path(__file__).resolve().parents[2] / "bench-out" / "venv-opencv4" / "bin" / "python"


class OpenCvPeers:
    """A process with OpenCV 4 that times the peers on request; use as a context."""

    def __enter__(self) -> OpenCvPeers:
        self._process = subprocess.Popen(
            [str(PYTHON), __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.close()
        self._process.wait(timeout=30)
        self._answers.close()

    @staticmethod
    def available() -> bool:
        return PYTHON.is_file()

    def ms(self, path: Path, width: int, height: int) -> float:
        """Return the CPU time of one forward pass on a luma plane of this size."""
        self._requests.write(f"{path} {width} {height}\n")
        self._requests.flush()
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError(f"the OpenCV 4 process ended on {path}")
        return float(answer)


def serve() -> None:
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    cv2.dnn_superres.DnnSuperResImpl_create()  # registers the layer that the graphs end in
    nets: dict[str, cv2.dnn.Net] = {}
    for line in sys.stdin:
        path, width, height = line.rsplit(maxsplit=2)
        if path not in nets:
            nets[path] = cv2.dnn.readNetFromTensorflow(path)
        y_HW = np.random.default_rng(0).integers(16, 236, (int(height), int(width)), dtype=np.uint8)
        start = time.process_time()
        nets[path].setInput(cv2.dnn.blobFromImage(y_HW, 1 / 255))
        nets[path].forward()
        print((time.process_time() - start) * 1e3, flush=True)


if __name__ == "__main__":
    serve()
