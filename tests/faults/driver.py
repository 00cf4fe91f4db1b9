"""A process that runs a job on Ray of its own and says who is there: for tests that do something to that process.

Arguments: clip, store, work directory. Prints the processes as JSON once frames are durable; the gate stays closed.
SIGTERM and SIGINT stop the run; prints the outcome's state.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import psutil

from actors.deploy import run_on_ray
from pipeline.flow.job import Progress
from tests.actors.runs import job_of


def main() -> None:
    clip, store, work = map(Path, sys.argv[1:4])
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    said: list[bool] = []

    def at(progress: Progress) -> None:
        if progress.frames_done and not said:
            said.append(True)
            children = [p.pid for p in psutil.Process(os.getpid()).children(recursive=True)]
            print(json.dumps(children), flush=True)

    job = job_of(clip, store, work, plan="chained", gate=str(work / "gate"), gate_frame=96)
    (outcome,) = run_on_ray([job], stop=stop, progress=at)
    print(outcome.state, flush=True)


if __name__ == "__main__":
    main()
