// The page: a list of streams, one stream in full, and a form that adds one. What comes from the service is put in as
// text, never as HTML.

import { blob, call, follow, hasToken, onTokenNeeded, setToken } from "/web/api.js";
import { Watch } from "/web/watch.js";

const LIST_MS = 2000;
const DETAIL_MS = 1000;
const THUMBNAIL_MS = 5000;
const PAGE = 60; // streams a page of the list
const MOST_EVENTS = 200;
const ENDED = new Set(["completed", "failed", "stopped"]);
const RUNGS = ["nothing made lighter", "fewer blocks refined", "fewer frames analysed", "lighter model", "bicubic", "lighter encoder"];

const gapText = (gap) => `${gap.reason} ${seconds(gap.seconds)}${gap.slate ? ", then a slate" : ""}`;

const $ = (id) => document.getElementById(id);
let shown = null; // the view: { close() }

function element(name, content, className) {
  const made = document.createElement(name);
  if (content !== undefined) made.textContent = content;
  if (className) made.className = className;
  return made;
}

function put(id, message) {
  $(id).textContent = message ?? "";
  $(id).hidden = !message;
}

function seconds(value) {
  if (value < 0.0005) return "–";
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 0)} s`;
}

function setState(target, state) {
  target.textContent = state;
  target.dataset.state = state;
}

// Call `step` again and again, one at a time, until stopped; a tab that nobody sees asks nothing.
function repeat(step, pause_ms) {
  let stopped = false;
  let timer = null;
  const round = async () => {
    if (!document.hidden) {
      try {
        await step();
        put("notice", null);
      } catch (error) {
        if (!stopped) put("notice", error.message);
      }
    }
    if (!stopped) timer = setTimeout(round, pause_ms);
  };
  round();
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}

// ---- the list ----

class List {
  constructor() {
    this.pages = 1;
    this.cards = new Map();
    $("cards").replaceChildren();
    $("streams").hidden = false;
    document.title = "Limpid";
    $("more").onclick = () => {
      this.pages += 1;
      this.refresh();
    };
    this.stop = repeat(() => this.refresh(), LIST_MS);
  }

  close() {
    this.stop();
    for (const card of this.cards.values()) card.close();
    $("streams").hidden = true;
  }

  async refresh() {
    const streams = [];
    let cursor = null;
    for (let page = 0; page < this.pages && (page === 0 || cursor); page++) {
      const query = new URLSearchParams({ limit: PAGE });
      if (cursor) query.set("cursor", cursor);
      const answer = await call("GET", `/v1/streams?${query}`);
      streams.push(...answer.items);
      cursor = answer.next_cursor;
    }
    $("more").hidden = !cursor;
    $("none").hidden = streams.length > 0;
    const ids = new Set(streams.map((stream) => stream.id));
    for (const [id, card] of this.cards) {
      if (ids.has(id)) continue;
      card.close();
      this.cards.delete(id);
    }
    streams.forEach((stream, index) => {
      if (!this.cards.has(stream.id)) this.cards.set(stream.id, new Card(stream.id));
      const card = this.cards.get(stream.id);
      card.show(stream);
      const there = $("cards").children[index];
      if (there !== card.node) $("cards").insertBefore(card.node, there ?? null);
    });
    await showCapacity();
  }
}

async function showCapacity() {
  const { cpus, gpus, used_cpus, streams } = await call("GET", "/v1/capacity");
  const cards = gpus ? `, ${gpus} GPUs` : "";
  put("capacity", `${streams} running · ${used_cpus.toFixed(1)} of ${cpus.toFixed(0)} cores used${cards}`);
  $("forget-token").hidden = !hasToken();
}

class Card {
  constructor(id) {
    this.node = $("card").content.firstElementChild.cloneNode(true);
    this.node.querySelector("a").href = `#/s/${id}`;
    this.node.querySelector(".name").textContent = id;
    this.picture = new Picture(this.node.querySelector("img"), this.node.querySelector(".no-picture"));
  }

  show(stream) {
    setState(this.node.querySelector(".state"), stream.state);
    this.node.querySelector(".source").textContent = stream.source;
    const figures = [];
    if (ENDED.has(stream.state)) figures.push(stream.reason || `${stream.frames} frames`);
    else if (stream.state !== "running" && stream.reason) figures.push(stream.reason);
    else {
      figures.push(`${stream.fps_in.toFixed(0)} → ${stream.fps_out.toFixed(0)} fps`, `lag ${seconds(stream.lag_s.p95)}`);
      if (stream.rung) figures.push(RUNGS[stream.rung] ?? `rung ${stream.rung}`);
    }
    this.node.querySelector(".figures").textContent = figures.join(" · ");
    const box = this.node.getBoundingClientRect();
    const visible = box.bottom > 0 && box.top < innerHeight;
    if (visible || !this.node.isConnected) this.picture.refresh(stream);
  }

  close() {
    this.picture.close();
    this.node.remove();
  }
}

// A thumbnail: fetched, because an <img> cannot send a token.
class Picture {
  constructor(image, placeholder) {
    this.image = image;
    this.placeholder = placeholder;
    this.at = -Infinity;
  }

  async refresh(stream) {
    const now = performance.now();
    const still = ENDED.has(stream.state) && this.url;
    if (still || now - this.at < THUMBNAIL_MS || !stream.links.snapshot) return;
    this.at = now;
    try {
      const url = URL.createObjectURL(await blob(stream.links.snapshot));
      this.#release();
      this.url = url;
      this.image.src = url;
      this.image.hidden = false;
      this.placeholder.hidden = true;
    } catch {
      // there is none yet: it is asked for again
    }
  }

  #release() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
  }

  close() {
    this.#release();
  }
}

// ---- one stream ----

class Detail {
  constructor(id) {
    this.id = id;
    this.path = `/v1/streams/${encodeURIComponent(id)}`;
    document.title = `${id} – Limpid`;
    $("stream").hidden = false;
    $("stream-title").textContent = id;
    for (const list of ["numbers", "latency", "events"]) $(list).replaceChildren();
    $("no-events").hidden = false;
    $("stream-source").textContent = "";
    setState($("stream-state"), "");
    put("stream-reason", null);
    put("stream-error", null);
    $("delete").onclick = () => this.remove();
    this.aborter = new AbortController();
    follow(`${this.path}/events`, this.aborter.signal, (event) => this.#happened(event));
    this.stop = repeat(() => this.refresh(), DETAIL_MS);
  }

  close() {
    this.stop();
    this.aborter.abort();
    this.watch?.close();
    $("stream").hidden = true;
  }

  async refresh() {
    const stream = await call("GET", this.path);
    if (this.aborter.signal.aborted) return;
    setState($("stream-state"), stream.state);
    $("stream-source").textContent = stream.source;
    put("stream-reason", stream.reason);
    put("stream-error", this.refused ?? stream.last_error);
    this.#numbers(stream);
    showLatency(stream.latency_s);
    if (this.watch) this.watch.update(stream);
    else this.watch = new Watch(stream);
  }

  #numbers(stream) {
    const behind = this.watch?.latency();
    const numbers = [
      ["Frames/s, in → out", `${stream.fps_in.toFixed(1)} → ${stream.fps_out.toFixed(1)}`],
      ["Lag, 95 % (target)", `${seconds(stream.lag_s.p95)} (${seconds(stream.max_lag_s)})`],
      ["Capture to this screen", behind == null ? "–" : seconds(behind / 1000)],
      ["Source size", stream.width ? `${stream.width} × ${stream.height}` : "–"],
      ["Model", [stream.model, stream.runtime].filter(Boolean).join(", ") || "–"],
      ["Overload", `rung ${stream.rung}: ${RUNGS[stream.rung] ?? "lighter"}`],
      ["Frames", stream.frames.toLocaleString()],
      ["Gaps", stream.gaps.length ? stream.gaps.map(gapText).at(-1) : "none"],
    ];
    $("numbers").replaceChildren(
      ...numbers.map(([name, value]) => {
        const row = element("div");
        row.append(element("dt", name), element("dd", value));
        return row;
      }),
    );
  }

  #happened(event) {
    $("no-events").hidden = true;
    const item = element("li");
    const time = element("time", new Date(event.time).toLocaleTimeString());
    time.dateTime = event.time;
    const data = Object.entries(event.data)
      .filter(([, value]) => value !== "")
      .map(([name, value]) => `${name}: ${plain(value)}`);
    item.append(time, element("strong", event.type), ` ${data.join(", ")}`);
    $("events").prepend(item);
    while ($("events").children.length > MOST_EVENTS) $("events").lastElementChild.remove();
  }

  async remove() {
    $("confirm-text").textContent = `Stop “${this.id}” and delete its output and tables?`;
    if ((await asked($("confirm"))) !== "yes") return;
    try {
      await call("DELETE", this.path);
      location.hash = "#/";
    } catch (error) {
      this.refused = error.message;
      put("stream-error", error.message);
    }
  }
}

function plain(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function showLatency(stages) {
  const rows = Object.entries(stages);
  const most = Math.max(0.001, ...rows.map(([, latency]) => latency.p95));
  $("latency").replaceChildren(
    ...rows.map(([name, { p50, p95, p99 }]) => {
      const row = element("li");
      const bar = element("span", undefined, "bar");
      for (const [kind, value] of [["p95", p95], ["p50", p50]]) {
        const part = element("i", undefined, kind);
        part.style.width = `${Math.min(100, (100 * value) / most)}%`;
        bar.append(part);
      }
      const value = element("span", `${seconds(p50)}, 95 % ${seconds(p95)}`, "value");
      value.title = `99 %: ${seconds(p99)}`;
      row.append(element("span", name), value, bar);
      return row;
    }),
  );
}

// ---- adding ----

function factsOf(found) {
  const { video, audio } = found;
  const rate = video.frame_rate ? `${video.frame_rate} frames/s` : "rate unknown";
  const group = video.gop_frames ? `a key frame at least every ${video.gop_frames} frames` : "one key frame seen";
  const length = found.duration_s == null ? (found.live ? "live" : "unknown") : `${found.duration_s.toFixed(1)} s`;
  return [
    ["Source", found.source],
    ["Container", `${found.container}, ${length}`],
    ["Picture", `${video.width} × ${video.height}, ${rate}, ${video.codec}`],
    ["Coding", `${group}${video.b_frames ? ", B-frames" : ""}`],
    ["Sound", audio ? `${audio.codec}, ${audio.sample_rate_hz} Hz, ${audio.channels} channels` : "none"],
    ["Verdict", found.verdict],
  ];
}

async function look(event) {
  event.preventDefault();
  const uri = $("add-uri").value.trim();
  put("add-error", null);
  $("found").hidden = true;
  $("look").disabled = true;
  $("look").textContent = "Looking…";
  try {
    const found = await call("POST", "/v1/probe", { uri });
    $("facts").replaceChildren(...factsOf(found).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
    const problems = Object.entries(found.problems).map(([name, count]) => `${count} × ${name.replaceAll("_", " ")}`);
    $("found-notes").replaceChildren(...[...found.notes, ...problems].map((note) => element("li", note)));
    $("found").hidden = false;
    $("start").focus();
  } catch (error) {
    put("add-error", error.message);
  }
  $("look").disabled = false;
  $("look").textContent = "Look at it";
}

async function start() {
  put("add-error", null);
  if (!$("add-id").reportValidity()) return;
  $("start").disabled = true;
  const request = {
    source: $("add-uri").value.trim(),
    enhance: { enabled: $("add-enhance").checked },
    outputs: { original: $("add-original").checked },
  };
  if ($("add-id").value) request.id = $("add-id").value;
  try {
    const stream = await call("POST", "/v1/streams", request);
    $("add").reset();
    $("found").hidden = true;
    location.hash = `#/s/${stream.id}`;
  } catch (error) {
    put("add-error", error.message);
  }
  $("start").disabled = false;
}

// ---- dialogs, and which view is shown ----

function asked(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}

let asking = null; // one dialog, however many calls were refused

async function askForToken(detail, tried) {
  if (sessionStorage.getItem("limpid-token") !== tried) return true; // another call has got one meanwhile
  asking ??= (async () => {
    setToken("");
    $("token-text").textContent = detail;
    $("token-value").value = "";
    const answer = await asked($("token"));
    const token = $("token-value").value.trim();
    $("token-value").value = "";
    if (answer === "yes") setToken(token);
    return answer === "yes";
  })();
  const again = await asking;
  asking = null;
  return again;
}

function route() {
  shown?.close();
  put("notice", null);
  const match = /^#\/s\/([a-z0-9-]{1,64})$/.exec(location.hash);
  shown = match ? new Detail(match[1]) : new List();
}

onTokenNeeded(askForToken);
$("add").addEventListener("submit", look);
$("add-uri").addEventListener("input", () => ($("found").hidden = true));
$("start").addEventListener("click", start);
$("token-cancel").addEventListener("click", () => $("token").close("no"));
$("forget-token").addEventListener("click", () => {
  setToken("");
  location.reload();
});
addEventListener("hashchange", route);
route();
