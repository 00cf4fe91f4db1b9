"""The registry without Ray: what is asked of it, what it keeps, what it tells; the processes are a stand-in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.registry import Registry
from actors.supervisor import News
from pipeline.config import Settings
from pipeline.errors import CapacityError, Conflict, NotFound, Refused
from pipeline.flow.job import Job, Outcome, Progress
from pipeline.request import StreamRequest
from pipeline.store import manifest as manifests
from pipeline.store.manifest import Manifest
from pipeline.store.objects import open_store
from pipeline.wire.status import Quantiles, SourceState, StreamStatus


class Processes:
    """Stands for a Crew: does what it is told when it is told, and can say anything."""

    def __init__(self, hear: Callable[[News], None]) -> None:
        self.hear = hear
        self.jobs: dict[str, Job] = {}
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self.hangs = False
        self._pause = threading.Event()

    def adopt(self) -> None: ...

    def step(self) -> None:
        self.news()
        self._pause.wait(0.01)

    def add(self, job: Job, key: str) -> None:
        self.jobs[key] = job

    def stop(self, key: str) -> None:
        if not self.hangs:
            job = self.jobs.pop(key)
            ended = Outcome(stream=job.stream, state="stopped", frames=0, epochs=0, seconds=0.0)
            self.news(outcomes={key: ended})

    def tell(self, method: str, *args: Any) -> None:
        self.told.append((method, args))

    def end(self) -> None: ...

    def news(self, **said: Any) -> None:
        nothing: dict[str, Any] = {"progress": {}, "outcomes": {}, "begun": frozenset(), "wanted": {}, "discarded": ()}
        self.hear(News(**{**nothing, **said}))


class Made:
    """A registry, its processes, and what it asked of the cluster."""

    def __init__(self, store: Path, *, cpus: float = 8.0, **settings: Any) -> None:
        self.grown: list[int] = []
        values = {"service": {"store": str(store)}, "source": {"allow_private": False, "local": False}, **settings}

        def crew(hear: Callable[[News], None], _expected: Settings) -> Any:
            self.processes = Processes(hear)
            return self.processes

        self.registry = Registry(
            Settings.from_dict(values), crew, cpus=lambda: cpus, gpus=lambda: 0.0, grow=self.grown.append
        )


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Made]]:
    made: list[Made] = []

    def again(**settings: Any) -> Made:
        for each in made:
            each.registry.end()
        made.append(Made(tmp_path / "data", **settings))
        return made[-1]

    yield again
    made[-1].registry.end()


def request(name: str | None = "a", **more: Any) -> StreamRequest:
    return StreamRequest.model_validate({"id": name, "source": "synthetic://street?seconds=9", **more})


def until(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(500):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen")


def running(name: str, **said: Any) -> dict[str, Any]:
    values = {"stream": name, "state": "running", "frames_done": 50, "fps": 25.0, "width": 64, "height": 48}
    return {"progress": {name: Progress(**{**values, **said})}}


def test_the_same_request_is_one_stream_and_another_a_conflict(make: Callable[..., Made]) -> None:
    made = make()
    status, new = made.registry.create(request(), dry_run=False)
    assert isinstance(status, StreamStatus)
    assert (status.state, new) == ("queued", True)
    assert made.registry.create(request(), dry_run=False)[1] is False
    with pytest.raises(Conflict, match="another request"):
        made.registry.create(request(labels={"x": "y"}), dry_run=False)
    until(lambda: "a" in made.processes.jobs)
    named, _ = made.registry.create(request(None), dry_run=False)
    assert isinstance(named, StreamStatus)
    assert named.id.startswith("s-")


def test_a_dry_run_begins_nothing(make: Callable[..., Made]) -> None:
    made = make()
    verdict, new = made.registry.create(request(), dry_run=True)
    assert (new, made.registry.streams()) == (False, [])
    assert verdict.fits  # type: ignore[union-attr]  # of a dry run it is a verdict


def test_what_is_refused_is_not_kept(make: Callable[..., Made]) -> None:
    made = make(cpus=0.1)
    with pytest.raises(Refused):
        made.registry.create(request(source="http://127.0.0.1/x.mp4"), dry_run=False)
    with pytest.raises(Refused):
        made.registry.create(request(source="/etc/passwd"), dry_run=False)
    with pytest.raises(CapacityError, match=r"0\.\d+ cores"):
        made.registry.create(request(source="rtmp://8.8.8.8/live"), dry_run=False)
    assert made.registry.streams() == []
    until(lambda: made.grown and made.grown[-1] >= 1)  # an autoscaler hears of what did not fit


def test_states_follow_from_what_is_heard_and_are_told_once(make: Callable[..., Made], tmp_path: Path) -> None:
    made = make()
    made.registry.create(request(), dry_run=False)
    until(lambda: made.processes.jobs)
    say = made.processes.news
    away = SourceState(connected=False, reason="refused", attempts=3)
    for said, state in (
        (running("a", frames_done=0, source=away), "connecting"),
        (running("a"), "running"),
        (running("a"), "running"),
        (running("a", source=away), "reconnecting"),
        (running("a", rung=4), "degraded"),
        (running("a", lag_s=Quantiles(p95=9.0)), "running"),  # a file may lag
    ):
        say(**said)
        assert made.registry.show("a").state == state
    assert "(3 tries)" not in made.registry.show("a").reason
    states = [e.data["state"] for e in made.registry._log.read(0)]
    assert states == ["queued", "connecting", "running", "reconnecting", "degraded", "running"]
    failed = Outcome(stream=made.processes.jobs["a"].stream, state="failed", frames=5, epochs=1, seconds=1.0)
    say(outcomes={"a": failed})
    assert made.registry.show("a").state == "failed"


def test_a_new_registry_takes_up_what_has_not_ended(make: Callable[..., Made]) -> None:
    made = make()
    for name in ("a", "b", "c"):
        made.registry.create(request(name), dry_run=False)
    until(lambda: len(made.processes.jobs) == 3)
    made.registry.patch("a", {"labels": {"site": "x"}, "priority": 9})
    made.registry.delete("b")
    job = made.processes.jobs["c"]
    made.processes.news(outcomes={"c": Outcome(stream=job.stream, state="completed", frames=9, epochs=1, seconds=1.0)})
    again = make()
    assert {s.id: s.state for s in again.registry.streams()} == {"a": "queued", "c": "completed"}
    assert again.registry.show("a").labels == {"site": "x"}
    assert set(again.processes.jobs) == {"a"}
    first, taken = made.processes.jobs["a"], again.processes.jobs["a"]
    assert taken.settings.live.priority == 9
    wanted = first.settings.to_dict()
    wanted["live"]["priority"] = 9
    assert taken == replace(first, settings=Settings.from_dict(wanted))


def test_another_lag_or_priority_is_told_to_what_runs_and_other_changes_are_not(make: Callable[..., Made]) -> None:
    made = make()
    made.registry.create(request("a"), dry_run=False)
    for change in ({"priority": 8}, {"labels": {"site": "x"}}, {"slo": {"max_lag_s": 0.5}}):
        made.registry.patch("a", change)
    until(lambda: len(made.processes.told) == 2)
    assert made.processes.told == [("aim", ("a", 1.0, 8)), ("aim", ("a", 0.5, 8))]


def test_a_stream_is_taken_up_as_it_was_begun_whatever_new_ones_get(make: Callable[..., Made], tmp_path: Path) -> None:
    """What shapes its output stays, and may not be changed; how it is worked on is as the service is set now."""
    made = make(encode={"crf": 23}, guard={"stability": 0.25})
    made.registry.create(request("a"), dry_run=False)
    made.registry.create(request("b"), dry_run=False)
    until(lambda: len(made.processes.jobs) == 2)
    job = made.processes.jobs["a"]
    begun = Manifest(id=job.stream, source=job.source, config=job.settings.to_dict())
    manifests.save(open_store(str(tmp_path / "data" / "streams" / "a")), begun)
    made = make(encode={"crf": 30}, flow={"max_hosts": 7})
    settings = {name: made.processes.jobs[name].settings for name in ("a", "b")}
    assert [settings[name].encode.crf for name in ("a", "b")] == [23, 30]
    assert [settings[name].guard.stability for name in ("a", "b")] == [0.25, Settings().guard.stability]
    assert [settings[name].flow.max_hosts for name in ("a", "b")] == [7, 7]
    assert made.registry.settings()["encode"]["crf"] == 30


def test_a_stream_that_does_not_end_is_forgotten_all_the_same_when_it_does(make: Callable[..., Made]) -> None:
    made = make()
    made.registry.create(request(), dry_run=False)
    until(lambda: made.processes.jobs)
    made.processes.hangs = True
    made.registry.delete("a")
    with pytest.raises(NotFound):
        made.registry.show("a")
    with pytest.raises(Conflict, match="being stopped"):
        made.registry.create(request(), dry_run=False)
    made.processes.hangs = False
    made.processes.stop("a")
    assert made.registry.create(request(), dry_run=False)[1]


def test_output_stays_or_goes_as_asked(make: Callable[..., Made], tmp_path: Path) -> None:
    made = make()
    kept, gone = (tmp_path / "data" / "streams" / name / "x" for name in ("kept", "gone"))
    for path in (kept, gone):
        made.registry.create(request(path.parent.name), dry_run=False)
        path.parent.mkdir(parents=True)
        path.write_text("x")
    until(lambda: len(made.processes.jobs) == 2)
    made.registry.delete("kept")
    made.registry.delete("gone", data=True)
    assert (kept.exists(), gone.exists()) == (True, False)


def test_limits_of_a_stage_are_checked_and_told(make: Callable[..., Made]) -> None:
    made = make()
    with pytest.raises(NotFound):
        made.registry.patch_stage("enhance", min=1, max=2, target_utilisation=None)


def test_a_live_stream_that_lags_is_degraded_but_not_for_what_came_while_it_started(make: Callable[..., Made]) -> None:
    made = make()
    made.registry.create(request(source="rtmp://8.8.8.8/live"), dry_run=False)
    until(lambda: made.processes.jobs)
    late = Quantiles(p95=9.0)
    for settling, state in ((True, "running"), (False, "degraded")):
        made.processes.news(**running("a", lag_s=late, settling=settling))
        assert made.registry.show("a").state == state
