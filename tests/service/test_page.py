"""The web page in Chromium, against the real application; streams are what runs write."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page

from actors.http.app import make_app
from pipeline.config import Settings
from pipeline.store.objects import open_store
from pipeline.store.tokens import new_token
from pipeline.wire.frames import Size
from pipeline.wire.status import COMPLETED, RUNNING, Gap, Quantiles, StreamStatus
from tests.actors.http.memory import MemoryService
from tests.actors.http.results import say
from tests.actors.http.serving import served
from tests.service import browser
from tests.service.page import DEADLINE_S, LOOK, Camera, Seen, chromium, recorded, time_of, until

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason=browser.MISSING)

PHONE = {"width": 360, "height": 740}
NASTY = "<img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service's store with a stream that has ended, "clip"."""
    work = tmp_path_factory.mktemp("page")
    recorded(work, work / "store" / "streams" / "clip")
    return work / "store"


@pytest.fixture
def service() -> MemoryService:
    made = MemoryService()
    made.statuses["clip"] = StreamStatus(
        id="clip",
        source="https://example.org/clip.mp4",
        state=COMPLETED,
        reason="the source has ended",
        width=320,
        height=180,
        frames=150,
    )
    return made


@pytest.fixture
def app(service: MemoryService, root: Path) -> FastAPI:
    return make_app(service, str(root), Settings())


@pytest.fixture
def seen(chrome: Browser, app: FastAPI) -> Iterator[Seen]:
    with served(app, websockets=True) as address:
        found = Seen(chrome, address)
        yield found
        found.close()
    assert found.complaints == []


@pytest.fixture
def camera(service: MemoryService, root: Path) -> Iterator[Camera]:
    """A live stream, "gate"."""
    yield from _camera(service, root, "gate", original=True)


@pytest.fixture
def lone_camera(service: MemoryService, root: Path) -> Iterator[Camera]:
    """A live stream without its input's picture and with a playlist of 6 s, "yard"."""
    yield from _camera(service, root, "yard", original=False)


def _camera(service: MemoryService, root: Path, name: str, *, original: bool) -> Iterator[Camera]:
    shutil.rmtree(root / "streams" / name, ignore_errors=True)  # of the test before
    found = Camera(root / "streams" / name, original=original, keep_s=0.0 if original else 6.0)
    service.statuses[name] = StreamStatus(
        id=name,
        source="rtsp://camera/1",
        state=RUNNING,
        width=160,
        height=96,
        fps_in=25.0,
        fps_out=25.0,
        lag_s=Quantiles(p50=0.1, p95=0.16, p99=0.2),
        latency_s={
            "decode": Quantiles(p50=0.01, p95=0.02, p99=0.03),
            "enhance": Quantiles(p50=0.06, p95=0.09, p99=0.1),
            "encode": Quantiles(p50=0.1, p95=0.16, p99=0.2),
        },
        rung=4,
        model="f-edsr-x2",
        runtime="openvino-int8",
        frames=1234,
        gaps=(Gap(epoch=1, reason="publisher restarted", seconds=1.5, slate=True),),
    )
    until(lambda: found.frames > 30 or found.error, "no frames")
    yield found
    found.close()


def plays(page: Page, video: str = "output", seconds: float = 1.0) -> None:
    """The video goes on by itself, and shows a picture."""
    note = page.locator("#stage-note").inner_text
    start = until(lambda: time_of(page, video) or None, f"{video} does not start: {note()}")
    until(lambda: time_of(page, video) >= start + seconds, f"{video} does not go on from {start}: {note()}")
    assert page.evaluate(LOOK, video)["spread"] > 20


def test_the_list_shows_each_stream_with_its_picture(seen: Seen, camera: Camera) -> None:
    page = seen.open()
    cards = page.locator(".card")
    cards.nth(1).wait_for()
    assert cards.locator(".name").all_text_contents() == ["clip", "gate"]
    assert cards.locator(".state").all_text_contents() == ["completed", "running"]
    assert "25 → 25 fps · lag 160 ms · bicubic" in cards.nth(1).inner_text()
    assert "cores used" in page.locator("#capacity").inner_text()
    for i in range(2):
        picture = cards.nth(i).locator("img")
        picture.wait_for()
        until(lambda p=picture: p.evaluate("(i) => i.naturalWidth") > 0, "no thumbnail")


def test_a_recorded_stream_plays_to_its_end_beside_its_input(seen: Seen) -> None:
    """150 frames at 25 Hz are 6 s."""
    page = seen.open("/#/s/clip")
    plays(page)
    assert page.evaluate("document.getElementById('output').videoWidth") == 640
    until(lambda: page.locator("#compare").is_visible(), "there is no input to compare with")
    plays(page, "input", 0.5)
    assert page.evaluate("document.getElementById('input').videoWidth") == 320
    until(lambda: page.evaluate("document.getElementById('output').ended"), "it does not end")
    assert time_of(page) == pytest.approx(6.0, abs=0.05)
    until(lambda: abs(time_of(page, "input") - time_of(page)) < 0.05, "the input is not on the output's frame")
    assert page.locator("#mode").is_hidden()


def test_seeking_shows_the_same_frame_of_both(seen: Seen) -> None:
    page = seen.open("/#/s/clip")
    plays(page, seconds=0.2)
    page.locator("#play").click()
    until(lambda: page.evaluate("document.getElementById('output').paused"), "it does not pause")
    page.locator("#seek").fill("2.5")
    until(lambda: time_of(page) == pytest.approx(2.5, abs=0.01), "it does not seek")
    until(lambda: abs(time_of(page, "input") - 2.5) < 0.01, "the input does not follow")
    until(lambda: page.locator("#play").get_attribute("aria-label") == "Play", "the button does not say so")


def test_the_slider_can_be_moved_by_keyboard_and_by_hand(seen: Seen) -> None:
    page = seen.open("/#/s/clip")
    slider = page.locator("#slider")
    slider.wait_for()

    def at() -> str:
        found: str = page.locator("#stage").evaluate("(stage) => stage.style.getPropertyValue('--at')")
        return found

    assert at() == "50%"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert at() == "50.5%"
    box = page.locator("#stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 50)
    page.mouse.up()
    assert float(at().rstrip("%")) == pytest.approx(25, abs=0.5)


def test_a_live_stream_is_watched_live_beside_its_input(seen: Seen, camera: Camera) -> None:
    page = seen.open("/#/s/gate")
    plays(page, seconds=3.0)
    plays(page, "input", 1.0)
    assert page.evaluate("document.getElementById('output').videoWidth") == 320
    assert page.evaluate("document.getElementById('input').videoWidth") == 160
    assert "behind" in until(lambda: page.locator("#clock").inner_text(), "no clock")
    numbers = page.locator("#numbers").inner_text()
    assert (
        "25.0 → 25.0" in numbers
        and "rung 4: bicubic" in numbers
        and "publisher restarted 1.50 s, then a slate" in numbers
    )
    assert page.locator("#latency li").count() == 3


def test_a_long_live_view_holds_a_few_seconds_only(seen: Seen, camera: Camera, root: Path) -> None:
    """25 s of it: more than the tap keeps (10 s) and than the player keeps (10 s)."""
    page = seen.open("/#/s/gate")
    start = until(lambda: time_of(page) or None, "it does not start")
    until(lambda: time_of(page) > start + 25, "it does not go on for 25 s", 60)
    buffered = page.evaluate(
        "(() => { const b = document.getElementById('output').buffered; return [b.start(0), b.end(b.length - 1)]; })()"
    )
    assert buffered[1] - buffered[0] < 15
    assert buffered[1] - time_of(page) < 1.5
    assert len(list((root / "streams" / "gate" / "live" / "main").glob("*.frag"))) <= 14
    assert page.evaluate(LOOK, "output")["spread"] > 20


def test_a_change_of_size_does_not_stop_the_live_view(seen: Seen, camera: Camera) -> None:
    page = seen.open("/#/s/gate")
    plays(page)
    camera.turn(Size(width_px=120, height_px=120))
    until(lambda: page.evaluate("document.getElementById('output').videoWidth") == 240, "no other size")
    plays(page, seconds=2.0)
    plays(page, "input", 0.5)
    assert page.evaluate("document.getElementById('input').videoWidth") == 120


def test_a_live_stream_can_be_watched_by_its_segments(seen: Seen, lone_camera: Camera, root: Path) -> None:
    """With a playlist that moves on, and no picture of the input."""
    page = seen.open("/#/s/yard")
    plays(page)
    assert page.locator("#compare").is_hidden()
    page.get_by_label("A few seconds later, with sound").check()
    plays(page, seconds=8.0)
    assert page.locator("#no-compare").is_visible()
    assert b"#EXT-X-MEDIA-SEQUENCE:0\n" not in (root / "streams" / "yard" / "hls" / "main" / "index.m3u8").read_bytes()
    page.get_by_label("Live, without sound").check()
    plays(page, seconds=1.0)


def test_the_end_of_a_live_stream_is_told(seen: Seen, camera: Camera, service: MemoryService) -> None:
    page = seen.open("/#/s/gate")
    plays(page)
    camera.close()
    service.become("gate", state=COMPLETED, reason="the source has ended")
    until(lambda: page.locator("#stage-note").inner_text() == "The stream has ended.", "the end is not told")
    until(lambda: page.locator("#stream-state").inner_text() == "completed", "the state is not told")


def test_events_appear_as_they_come(seen: Seen, root: Path) -> None:
    page = seen.open("/#/s/clip")
    page.locator("#no-events").wait_for()
    say(open_store(str(root)), "clip", "connecting", "degraded")
    until(lambda: page.locator("#events li", has_text="state: degraded").count() == 1, "no events")
    assert "stream.state_changed state: degraded" in page.locator("#events li").first.inner_text()
    assert "state: completed" in page.locator("#events").inner_text()  # the run's own


def test_what_is_wrong_with_an_address_is_told(seen: Seen) -> None:
    page = seen.open()
    page.locator("#add-uri").fill("gopher://example.org/video")
    page.locator("#look").click()
    until(lambda: page.locator("#add-error").is_visible(), "no error is shown")
    assert "gopher" in page.locator("#add-error").inner_text()
    assert page.locator("#found").is_hidden()


def test_a_stream_is_looked_at_then_started(seen: Seen, service: MemoryService, root: Path) -> None:
    handler = functools.partial(_Quiet, directory=str(root.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        uri = f"http://127.0.0.1:{server.server_port}/clip.mp4"
        page = seen.open()
        page.locator("#add-uri").fill(uri)
        page.locator("#look").press("Enter")
        page.locator("#start").wait_for()
        facts = page.locator("#facts").inner_text()
        assert "320 × 180" in facts and "aac" in facts and "usable" in facts
        page.locator("#add-id").fill("door")
        page.locator("#add-enhance").uncheck()
        page.locator("#start").click()
        page.wait_for_url("**/#/s/door")
        page.locator("#stream-state", has_text="queued").wait_for()
        assert (service.requests["door"].source.uri, service.requests["door"].enhance.enabled) == (uri, False)
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_refusal_is_told_in_the_service_s_own_words(seen: Seen, service: MemoryService) -> None:
    """The name is taken: 409, and its detail."""
    page = seen.open()
    until(lambda: page.locator(".card").count() == 1, "no list")
    answer = {"status": 409, "json": {"status": 409, "detail": "there is a stream 'door' with another request"}}
    page.route(
        "**/v1/streams", lambda route: route.fulfill(**answer) if route.request.method == "POST" else route.continue_()
    )
    page.evaluate("document.getElementById('found').hidden = false")
    page.locator("#add-uri").evaluate("(input) => { input.value = 'rtsp://camera/2'; }")
    page.locator("#start").click()
    until(lambda: page.locator("#add-error").is_visible(), "no error is shown")
    assert page.locator("#add-error").inner_text() == "there is a stream 'door' with another request"


def test_deleting_asks_first(seen: Seen, service: MemoryService) -> None:
    service.statuses["door"] = StreamStatus(id="door", source="rtsp://camera/2", state=RUNNING)
    service.requests["door"] = None  # type: ignore[assignment]  # only its name matters here
    page = seen.open("/#/s/door")
    page.locator("#stream-state", has_text="running").wait_for()
    page.locator("#delete").click()
    page.get_by_role("button", name="Keep it").click()
    assert "door" in service.statuses
    page.locator("#delete").click()
    page.locator("#confirm").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/#/")
    assert "door" not in service.statuses
    until(lambda: page.locator(".card").count() == 1, "it is still listed")


def test_what_streams_are_called_is_shown_as_text(seen: Seen, service: MemoryService) -> None:
    service.statuses["odd"] = StreamStatus(
        id="odd", source=f"https://example.org/{NASTY}", state=RUNNING, reason=NASTY, last_error=NASTY, model=NASTY
    )
    page = seen.open()
    until(lambda: page.locator(".card").count() == 2, "no list")
    assert NASTY in page.locator(".card .source").all_text_contents()[1]
    page.goto(f"{seen.address}/#/s/odd")
    until(lambda: NASTY in page.locator("#stream-reason").inner_text(), "the reason is not shown")
    assert page.title() == "odd – Limpid"
    assert page.locator("main img:visible").count() == 0


def test_a_token_is_asked_for_and_kept_in_the_tab(chrome: Browser, service: MemoryService, root: Path) -> None:
    app = make_app(service, str(root), Settings.from_dict({"service": {"tokens": "on"}}))
    token = new_token(open_store(str(root)), "page", ("read", "write"), now_s=0.0)
    with served(app, websockets=True) as address:
        seen = Seen(chrome, address)
        page = seen.open()
        page.locator("#token").wait_for()
        page.locator("#token-value").fill("wrong")
        page.keyboard.press("Enter")
        until(lambda: "not known" in page.locator("#token-text").inner_text(), "a wrong token is not told")
        page.locator("#token-value").fill(token)
        page.get_by_role("button", name="Use it").click()
        until(lambda: page.locator(".card").count() == 1, "no list")
        until(lambda: page.locator(".card img").evaluate("(i) => i.naturalWidth") > 0, "no thumbnail")
        page.locator(".card a").click()
        plays(page)
        page.reload()
        plays(page)
        assert page.locator("#token").is_hidden()
        assert page.evaluate("Object.keys(localStorage).length") == 0
        assert token not in page.url
        seen.close()
    assert seen.complaints == []


def test_a_live_view_with_tokens_opens_by_its_signed_link(
    chrome: Browser, service: MemoryService, root: Path, camera: Camera
) -> None:
    app = make_app(service, str(root), Settings.from_dict({"service": {"tokens": "on"}}))
    token = new_token(open_store(str(root)), "viewer", ("read",), now_s=0.0)
    with served(app, websockets=True) as address:
        seen = Seen(chrome, address)
        page = seen.open("/web/icon.svg")
        page.evaluate("(token) => sessionStorage.setItem('limpid-token', token)", token)
        page = seen.open("/#/s/gate")
        plays(page, seconds=2.0)
        assert "behind" in page.locator("#clock").inner_text()
        seen.close()
    assert seen.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(chrome: Browser, app: FastAPI, camera: Camera, scheme: str, tmp_path: Path) -> None:
    with served(app, websockets=True) as address:
        seen = Seen(chrome, address, viewport=PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
        page = seen.open()
        until(lambda: page.locator(".card").count() == 2, "no list")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        page.locator(".card a").nth(1).tap()
        plays(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        page.screenshot(path=str(tmp_path / f"phone-{scheme}.png"), full_page=True)
        seen.close()
    assert seen.complaints == []


def test_all_of_it_can_be_reached_by_keyboard(seen: Seen) -> None:
    page = seen.open()
    until(lambda: page.locator(".card").count() == 1, "no list")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))
    assert {"#main", "add-uri", "look", "#/s/clip"} <= set(reached)
    page.locator(".card a").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/#/s/clip")
    page.locator("#play").focus()
    plays(page, seconds=0.2)
    page.keyboard.press("Enter")
    until(lambda: page.evaluate("document.getElementById('output').paused"), "it does not pause", DEADLINE_S)


def test_nothing_comes_from_elsewhere(chrome: Browser, app: FastAPI) -> None:
    with served(app, websockets=True) as address:
        seen = Seen(chrome, address)
        asked: list[str] = []
        seen.page.on("request", lambda request: asked.append(request.url))
        page = seen.open("/#/s/clip")
        plays(page)
        policy = page.evaluate("fetch('/').then((answer) => answer.headers.get('Content-Security-Policy'))")
        seen.close()
    assert all(url.startswith((f"{address}/", "blob:")) for url in asked)
    assert "unsafe" not in policy and "default-src 'self'" in policy
    assert seen.complaints == []
