// The player of one stream: live view or segments, the source's picture beside it, and the controls.

import { LiveView, Places } from "/web/live.js";
import { SegmentsView } from "/web/segments.js";

const ENDED = new Set(["completed", "failed", "stopped"]);
const PATIENCE_MS = 3000; // that the live view has for its first picture
const AGAIN_MS = 2000; // before a stream that has no picture yet is tried again

const $ = (id) => document.getElementById(id);

export class Watch {
  constructor(stream) {
    this.stream = stream;
    this.output = $("output");
    this.input = $("input");
    this.view = null;
    this.wantsPause = false;
    this.closed = false;
    this.listeners = new AbortController();
    this.#controls();
    this.#reset();
    this.#frames();
    if (ENDED.has(stream.state)) this.#segments();
    else this.#live();
    this.timer = setInterval(() => this.#tick(), 200);
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    clearTimeout(this.again);
    this.listeners.abort();
    this.#stop();
    this.#note("");
  }

  // A newer status of the stream.
  update(stream) {
    const ended = ENDED.has(stream.state) && !ENDED.has(this.stream.state);
    this.stream = stream;
    if (ended && this.view === null) this.#segments();
  }

  // Milliseconds from capture to this screen; null if it is not known.
  latency() {
    if (ENDED.has(this.stream.state) || !this.output.currentTime) return null;
    return this.shown_ms ?? null;
  }

  #note(message) {
    $("stage-note").textContent = message;
  }

  #reset() {
    for (const id of ["input", "split", "label-input", "label-output", "compare", "seek", "to-end", "no-compare"]) {
      $(id).hidden = true;
    }
    $("mute").hidden = true;
    $("mode").hidden = ENDED.has(this.stream.state);
    this.shown_ms = null;
  }

  #stop() {
    clearTimeout(this.patience);
    this.view?.close();
    this.inputView?.close();
    this.view = this.inputView = null;
  }

  // ---- live ----

  #live() {
    this.#stop();
    this.#reset();
    this.mode = "live";
    this.#note("Waiting for the picture…");
    const places = new Places();
    this.view = new LiveView(this.output, this.stream.links.live, "main", places, (kind) => this.#told(kind));
    this.inputView = new LiveView(this.input, this.stream.links.live, "input", places, (kind) => {
      if (kind === "epoch") this.#compare(true);
    });
    this.patience = setTimeout(() => this.#later(), PATIENCE_MS);
  }

  // The live view gives nothing: the segments may.
  #later() {
    if (this.mode === "live") this.#segments();
  }

  #told(kind) {
    if (kind === "epoch") {
      clearTimeout(this.patience);
      this.#note("");
    } else if (kind === "skipped") {
      this.#note("The network is too slow for the live view: some of it was left out.");
      clearTimeout(this.noteTimer);
      this.noteTimer = setTimeout(() => this.#note(""), 4000);
    } else if (kind === "lost") this.#note("The connection broke. Trying again…");
    else if (kind === "ended") this.#note("The stream has ended.");
    else if (kind === "gone") this.#note("This stream was deleted.");
    else if (kind === "error") this.#later();
  }

  // ---- segments ----

  #segments() {
    this.#stop();
    this.#reset();
    this.mode = "segments";
    const live = !ENDED.has(this.stream.state);
    $("seek").hidden = false;
    $("mute").hidden = false;
    $("to-end").hidden = !live;
    this.#note("Waiting for the first segment…");
    this.view = new SegmentsView(this.output, this.input, this.stream.links.hls, live, (kind, detail) => {
      if (kind === "epoch") {
        this.#note("");
        if (!this.wantsPause) this.output.play().catch(() => {});
      } else if (kind === "input") this.#compare(true);
      else if (kind === "no input") this.#compare(false);
      else if (kind === "error") this.#failed(detail);
    });
  }

  #failed(detail) {
    this.#stop();
    if (ENDED.has(this.stream.state)) {
      this.#note(this.stream.frames ? detail : "This stream ended before there was a picture.");
      return;
    }
    this.#note("There is no picture yet.");
    this.again = setTimeout(() => !this.closed && this.#segments(), AGAIN_MS);
  }

  // ---- the source's picture ----

  #compare(there) {
    for (const id of ["input", "split", "label-input", "label-output", "compare"]) $(id).hidden = !there;
    $("no-compare").hidden = there;
    if (there) this.#split(Number($("slider").value));
  }

  #split(percent) {
    const bounded = Math.min(100, Math.max(0, percent));
    $("slider").value = bounded;
    $("stage").style.setProperty("--at", `${bounded}%`);
  }

  // Keep the source's picture on the output's frame.
  #together() {
    const { input, output } = this;
    if (input.hidden || !input.buffered.length) return;
    const apart_s = output.currentTime - input.currentTime;
    if (output.paused || output.seeking) {
      if (!input.paused) input.pause();
      if (Math.abs(apart_s) > 0.004 && !input.seeking) input.currentTime = output.currentTime;
      return;
    }
    if (input.paused) input.play().catch(() => {});
    if (Math.abs(apart_s) > 0.25 && !input.seeking) input.currentTime = output.currentTime;
    const pull = Math.max(-0.3, Math.min(0.3, apart_s * 4));
    input.playbackRate = output.playbackRate * (1 + (Math.abs(apart_s) > 0.002 ? pull : 0));
  }

  // ---- controls ----

  #frames() {
    if (!this.output.requestVideoFrameCallback) return;
    const shown = (now, { mediaTime }) => {
      if (this.closed) return;
      this.shown_ms = this.view?.latency(mediaTime, Date.now()) ?? this.shown_ms;
      this.#together();
      this.output.requestVideoFrameCallback(shown);
    };
    this.output.requestVideoFrameCallback(shown);
  }

  #tick() {
    const { output } = this;
    this.#together();
    $("play").textContent = output.paused ? "▶" : "❚❚";
    $("play").setAttribute("aria-label", output.paused ? "Play" : "Pause");
    const { videoWidth: width, videoHeight: height } = output;
    const size = width ? `${width} × ${height}` : "";
    if (this.mode === "live") {
      $("clock").textContent = [size, this.shown_ms === null ? "" : `${(this.shown_ms / 1000).toFixed(2)} s behind`]
        .filter(Boolean)
        .join(" · ");
      return;
    }
    const [first, last] = this.view?.range() ?? [0, 0];
    const seek = $("seek");
    if (document.activeElement !== seek || !this.seeking) {
      [seek.min, seek.max] = [first, Math.max(last, first + 0.01)];
      seek.value = output.currentTime;
    }
    $("clock").textContent = [`${clock(output.currentTime - first)} / ${clock(last - first)}`, size].join(" · ");
  }

  #controls() {
    const { output } = this;
    const on = (id, kind, action) => $(id).addEventListener(kind, action, { signal: this.listeners.signal });
    on("play", "click", () => {
      this.wantsPause = !output.paused;
      if (this.view) this.view.wantsPause = this.wantsPause;
      if (output.paused) output.play().catch(() => {});
      else output.pause();
    });
    on("seek", "input", () => {
      this.seeking = true;
      output.currentTime = Number($("seek").value);
    });
    on("seek", "change", () => (this.seeking = false));
    on("to-end", "click", () => this.view?.toEnd?.());
    on("mute", "click", () => {
      output.muted = !output.muted;
      $("mute").setAttribute("aria-pressed", String(output.muted));
      $("mute").textContent = output.muted ? "Sound off" : "Sound on";
    });
    on("full", "click", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else $("stage").requestFullscreen?.();
    });
    on("slider", "input", () => this.#split(Number($("slider").value)));
    const drag = (event) => {
      const box = $("stage").getBoundingClientRect();
      this.#split((100 * (event.clientX - box.left)) / box.width);
    };
    on("stage", "pointerdown", (event) => {
      if ($("split").hidden) return;
      $("stage").setPointerCapture(event.pointerId);
      drag(event);
    });
    on("stage", "pointermove", (event) => event.buttons && !$("split").hidden && drag(event));
    for (const choice of document.getElementsByName("mode")) {
      choice.checked = choice.value === "live";
      choice.addEventListener(
        "change",
        () => (choice.value === "live" ? this.#live() : this.#segments()),
        { signal: this.listeners.signal },
      );
    }
  }
}

function clock(time_s) {
  const whole = Math.max(0, Math.floor(time_s));
  const minutes = Math.floor(whole / 60);
  return `${minutes}:${String(whole % 60).padStart(2, "0")}`;
}
