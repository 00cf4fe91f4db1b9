// The live view: a fragment a frame over a WebSocket, played as near to its end as the network allows.

import { capturedAt, clockOf, startOf } from "/web/fmp4.js";
import { Screen } from "/web/sink.js";

const WINDOW_BYTES = 1 << 20; // on their way to us, at most: more would only make the picture older
const NEAR_S = 0.25; // behind the newest frame: played a little faster above it
const FAR_S = 1.2; // behind it: jumped
const KEPT_S = 10;
const AGAIN_MS = 1000;
const NO_STREAM = 4404;

// Where each epoch's clock lies on the player's timeline; the output decides, the source's picture follows.
export class Places {
  #known = new Map();
  #waiting = new Map();

  has(epoch) {
    return this.#known.has(epoch);
  }

  now(epoch) {
    return this.#known.get(epoch);
  }

  set(epoch, offset_s) {
    this.#known.set(epoch, offset_s);
    for (const resolve of this.#waiting.get(epoch) ?? []) resolve(offset_s);
    this.#waiting.delete(epoch);
  }

  get(epoch) {
    if (this.#known.has(epoch)) return Promise.resolve(this.#known.get(epoch));
    return new Promise((resolve) => {
      this.#waiting.set(epoch, [...(this.#waiting.get(epoch) ?? []), resolve]);
    });
  }
}

export class LiveView {
  // `link`: path of the WebSocket; `view`: "main" decides on `places`, "input" follows; `tell(kind, detail)`:
  // "epoch" (there is a picture to come), "skipped", "ended", "lost", "gone", "error".
  constructor(video, link, view, places, tell) {
    this.screen = new Screen(video);
    this.video = video;
    this.places = places;
    this.leads = view === "main";
    this.tell = tell;
    this.url = new URL(link, location.href);
    this.url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.url.searchParams.set("view", view);
    this.url.searchParams.set("window", WINDOW_BYTES);
    this.captured = []; // [player's seconds, Unix ms], of the last frames
    this.messages = [];
    this.closed = false;
    this.working = false;
    this.#connect();
    if (this.leads) this.timer = setInterval(() => this.#keepUp(), 100);
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    clearTimeout(this.again);
    this.socket.close();
    this.screen.close();
  }

  // Milliseconds from the capture of the frame that is shown at `time_s` until `now_ms`; null if it is not known.
  latency(time_s, now_ms) {
    const shown = this.captured.findLast(([at]) => at <= time_s + 0.005);
    return shown ? now_ms - shown[1] : null;
  }

  #connect() {
    this.taken = 0;
    this.messages = [];
    this.epoch = null;
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = (message) => {
      this.messages.push(message.data);
      this.#work();
    };
    socket.onclose = (event) => {
      if (this.closed || this.ended) return;
      if (event.code === NO_STREAM) {
        this.tell("gone", event.reason);
        return;
      }
      this.tell("lost", event.reason);
      this.again = setTimeout(() => this.#connect(), AGAIN_MS);
    };
  }

  async #work() {
    if (this.working) return;
    this.working = true;
    try {
      while (this.messages.length && !this.closed) await this.#take(this.messages.shift());
    } catch (error) {
      if (!this.closed) this.tell("error", error.message);
    }
    this.working = false;
  }

  async #take(message) {
    if (typeof message === "string") {
      const told = JSON.parse(message);
      if (told.type === "epoch") this.epoch = { ...told, init: null, begun: false };
      if (told.type === "ended") this.ended = true;
      this.tell(told.type, told);
      return;
    }
    const socket = this.socket;
    let data = new Uint8Array(message);
    if (!this.epoch.init) {
      this.epoch.init = data;
      this.epoch.clock = clockOf(data);
      this.#told(socket, data.length);
      return;
    }
    if (!this.epoch.begun) await this.#begin(data);
    const all = [data];
    while (this.messages.length && typeof this.messages[0] !== "string") all.push(new Uint8Array(this.messages.shift()));
    for (const fragment of all) this.#note(fragment);
    data = joined(all);
    await this.sink.append(data);
    this.#told(socket, data.length);
    await this.sink.forget(this.video.currentTime - KEPT_S);
  }

  async #begin(fragment) {
    const { epoch, init, clock, codecs } = this.epoch;
    const type = `video/mp4; codecs="${codecs}"`;
    this.epoch.begun = true;
    this.sink ??= await this.screen.sink(type);
    const start_s = startOf(fragment, clock);
    if (this.leads) {
      const end_s = this.screen.end();
      // A known epoch goes on where it was, unless the stream itself was begun anew under the same name.
      const known = this.places.has(epoch) && Math.abs(this.places.now(epoch) + start_s - end_s) < 30;
      if (!known) this.places.set(epoch, end_s - start_s);
    }
    await this.sink.begin(epoch, init, type, await this.places.get(epoch));
  }

  #note(fragment) {
    const captured_ms = capturedAt(fragment);
    if (captured_ms === null) return;
    const at = startOf(fragment, this.epoch.clock) + this.places.now(this.epoch.epoch);
    this.captured.push([at, captured_ms]);
    if (this.captured.length > 600) this.captured.splice(0, 300);
  }

  #told(socket, size) {
    this.taken += size;
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "taken", bytes: this.taken }));
  }

  // Stay near the end; a viewer's pause is a pause.
  #keepUp() {
    const { video } = this;
    if (this.wantsPause || !video.buffered.length) return;
    const end_s = this.screen.end();
    const behind_s = end_s - video.currentTime;
    if (behind_s > FAR_S || behind_s < -0.5) video.currentTime = Math.max(0, end_s - 0.1);
    else if (behind_s > 0.05 && this.screen.behindHole(video.currentTime) !== null) video.currentTime = end_s - 0.05;
    video.playbackRate = behind_s > 2 * NEAR_S ? 1.15 : behind_s > NEAR_S ? 1.05 : 1;
    if (video.paused && !this.ended) video.play().catch(() => {});
  }
}

function joined(parts) {
  if (parts.length === 1) return parts[0];
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
