// Plays our playlists (RFC 8216, as pipeline/media/hls.py writes them): video and audio, and beside them the source's
// picture, whose segments have the video's names.

import { bytes, text } from "/web/api.js";
import { clockOf, startOf, videoTypeOf } from "/web/fmp4.js";
import { Places } from "/web/live.js";
import { Screen } from "/web/sink.js";

const AHEAD_S = 20; // of what is shown, kept ready
const BEHIND_S = 30;
const LIVE_SEGMENTS = 2; // from the end, that a live stream is entered at
const STEP_MS = 100;

class Rendition {
  constructor(url) {
    this.url = url;
    this.segments = [];
    this.ended = false;
    this.target_s = 1;
    this.asked = -Infinity;
  }

  // Read the playlist again if it may have grown.
  async refresh(now_ms) {
    if (this.ended || now_ms - this.asked < this.target_s * 500) return;
    this.asked = now_ms;
    const known = new Map(this.segments.map((segment) => [segment.name, segment]));
    const found = [];
    let init = null;
    let next = { duration_s: 0, date_ms: null };
    for (const line of (await text(this.url)).split("\n")) {
      const [, tag, value] = /^(#[A-Z-]+):?(.*)$/.exec(line) ?? [null, "", ""];
      if (tag === "#EXT-X-TARGETDURATION") this.target_s = Number(value);
      else if (tag === "#EXT-X-MAP") init = new URL(/URI="([^"]+)"/.exec(value)[1], this.url).href;
      else if (tag === "#EXT-X-PROGRAM-DATE-TIME") next.date_ms = Date.parse(value);
      else if (tag === "#EXTINF") next.duration_s = parseFloat(value);
      else if (tag === "#EXT-X-ENDLIST") this.ended = true;
      else if (line && !line.startsWith("#")) {
        const name = line.split("?")[0];
        const url = new URL(line, this.url).href;
        found.push(known.get(name) ?? { name, url, init, epoch: Number(name.split("-")[0]), start_s: null, ...next });
        next = { duration_s: 0, date_ms: null };
      }
    }
    this.segments = found;
  }

  end_s() {
    const last = this.segments.at(-1);
    return last?.start_s == null ? 0 : last.start_s + last.duration_s;
  }

  // Whether it is known where all of it lies.
  placed() {
    return this.segments.at(-1)?.start_s != null;
  }

  // The segment that is shown at `at_s`, else the first behind it.
  at(at_s) {
    return this.segments.find((s) => s.start_s !== null && at_s < s.start_s + s.duration_s) ?? null;
  }

  after(segment) {
    return this.segments[this.segments.indexOf(segment) + 1] ?? null;
  }
}

export class SegmentsView {
  // `master`: path of the master playlist; `live`: enter near the end; `tell(kind, detail)`: "epoch", "input" (there is
  // the source's picture), "ended", "error".
  constructor(video, inputVideo, master, live, tell) {
    this.video = video;
    this.inputVideo = inputVideo;
    this.master = new URL(master, location.href).href;
    this.live = live;
    this.tell = tell;
    this.places = new Places();
    this.cached = new Map(); // initialisation segments
    this.aborter = new AbortController();
    this.closed = false;
    this.screen = new Screen(video);
    this.#start().catch((error) => {
      if (!this.closed) this.tell("error", error.message);
    });
  }

  close() {
    this.closed = true;
    this.aborter.abort();
    this.screen.close();
    this.inputScreen?.close();
  }

  range() {
    const first = this.main?.segments[0];
    return first ? [first.start_s, this.main.end_s()] : [0, 0];
  }

  // Go to the newest picture.
  toEnd() {
    const [first, last] = this.range();
    this.video.currentTime = Math.max(first, last - LIVE_SEGMENTS * this.main.target_s);
  }

  latency(time_s, now_ms) {
    const shown = this.main?.at(time_s);
    return shown?.date_ms ? now_ms - shown.date_ms - (time_s - shown.start_s) * 1000 : null;
  }

  async #start() {
    const { main, audio, types } = await this.#renditions();
    this.main = main;
    // All buffers before the first byte: browsers take no further ones behind it.
    this.videoSink = await this.screen.sink(types.video);
    const jobs = [];
    if (audio) jobs.push(this.#feedAudio(audio, await this.screen.sink(types.audio), types.audio));
    await this.#refreshVideo();
    if (this.live && this.main.segments.length) this.entry_s = this.#entry();
    await Promise.all([this.#feedVideo(), ...jobs]);
  }

  #entry() {
    return (this.main.segments.at(-LIVE_SEGMENTS) ?? this.main.segments[0]).start_s;
  }

  async #renditions() {
    let audio = null;
    let codecs = "";
    let uri = null;
    for (const line of (await text(this.master)).split("\n")) {
      if (line.startsWith("#EXT-X-MEDIA:") && line.includes("TYPE=AUDIO")) audio = /URI="([^"]+)"/.exec(line)[1];
      else if (line.startsWith("#EXT-X-STREAM-INF:") && uri === null) codecs = /CODECS="([^"]+)"/.exec(line)[1];
      else if (line && !line.startsWith("#")) uri ??= line;
    }
    const named = codecs.split(",");
    const types = { video: `video/mp4; codecs="${named.find((codec) => codec.startsWith("avc1"))}"` };
    const sound = named.find((codec) => !codec.startsWith("avc1"));
    if (sound) types.audio = `audio/mp4; codecs="${sound}"`;
    const plays = audio && sound && MediaSource.isTypeSupported(types.audio);
    return {
      main: new Rendition(new URL(uri, this.master).href),
      audio: plays ? new Rendition(new URL(audio, this.master).href) : null,
      types,
    };
  }

  // Segments lie one behind the other on the player's timeline, whatever their clocks say.
  async #refreshVideo() {
    const end_s = this.main.end_s();
    await this.main.refresh(performance.now());
    let at_s = end_s;
    for (const segment of this.main.segments) {
      segment.start_s ??= at_s;
      at_s = segment.start_s + segment.duration_s;
    }
  }

  async #feedVideo() {
    const { screen, video } = this;
    let last = null;
    while (!this.closed) {
      await this.#refreshVideo();
      const wanted = this.#next(this.videoSink, this.main, last);
      if (wanted) {
        await this.#appendVideo(wanted);
        last = wanted;
        screen.lengthen(this.main.end_s());
        await this.videoSink.forget(video.currentTime - BEHIND_S);
        this.#place();
        continue;
      }
      // Not before the sound is there as well: a player whose end comes before its start gives up.
      if (screen.sinks.every((sink) => sink.whole)) {
        screen.finish();
        this.inputScreen?.finish();
      }
      const [first] = this.range();
      if (this.live && !video.paused && video.currentTime < first - 0.5) this.toEnd();
      this.#place();
      await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    }
  }

  // What is to be fetched next; null if enough is there.
  #next(sink, rendition, last) {
    const now_s = this.entry_s ?? this.video.currentTime;
    const until_s = sink.bufferedFrom(now_s);
    const found = rendition.at(until_s + 0.02);
    const wanted = found && found === last ? rendition.after(found) : found;
    sink.whole = rendition.ended && !wanted && rendition.placed();
    return until_s - now_s > AHEAD_S ? null : wanted;
  }

  // Enter where the stream is to be entered, and step over holes.
  #place() {
    const { video, screen } = this;
    if (this.entry_s !== undefined && this.videoSink.bufferedFrom(this.entry_s) > this.entry_s) {
      video.currentTime = this.entry_s;
      this.entry_s = undefined;
    }
    const behind = this.entry_s === undefined && !video.seeking ? screen.behindHole(video.currentTime) : null;
    if (behind !== null && behind - video.currentTime < 1) video.currentTime = behind + 0.001;
  }

  async #init(url) {
    if (!this.cached.has(url)) this.cached.set(url, await bytes(url, this.aborter.signal));
    return this.cached.get(url);
  }

  async #appendVideo(segment) {
    const init = await this.#init(segment.init);
    const data = await bytes(segment.url, this.aborter.signal);
    const type = videoTypeOf(init);
    if (!this.places.has(segment.epoch)) {
      this.places.set(segment.epoch, segment.start_s - startOf(data, clockOf(init)));
    }
    if (this.videoSink.init !== segment.init) {
      await this.videoSink.begin(segment.init, init, type, this.places.now(segment.epoch));
      this.tell("epoch", {});
    }
    await this.videoSink.append(data);
    if (this.inputVideo) this.#appendInput(segment).catch(() => this.#noInput());
  }

  // The source's picture of the same frames; a stream that keeps none has none of these files.
  async #appendInput(segment) {
    const there = (url) => url.replace("/main/", "/input/");
    const [init, data] = await Promise.all([
      this.#init(there(segment.init)),
      bytes(there(segment.url), this.aborter.signal),
    ]);
    const type = videoTypeOf(init);
    this.inputScreen ??= new Screen(this.inputVideo);
    this.inputSink ??= this.inputScreen.sink(type);
    const sink = await this.inputSink;
    if (sink.init !== segment.init) {
      await sink.begin(segment.init, init, type, this.places.now(segment.epoch));
      this.tell("input", {});
    }
    await sink.append(data);
    await sink.forget(this.video.currentTime - BEHIND_S);
  }

  #noInput() {
    this.inputScreen?.close();
    this.inputVideo = null;
    this.tell("no input", {});
  }

  async #feedAudio(audio, sink, type) {
    let last = null;
    while (!this.closed) {
      await audio.refresh(performance.now());
      await this.#placeAudio(audio);
      const wanted = this.#next(sink, audio, last);
      if (!wanted || wanted.start_s === null) {
        await new Promise((resolve) => setTimeout(resolve, STEP_MS));
        continue;
      }
      const data = await bytes(wanted.url, this.aborter.signal);
      if (sink.init !== wanted.init) {
        const offset_s = this.places.now(wanted.epoch);
        await sink.begin(wanted.init, await this.#init(wanted.init), type, offset_s);
      }
      await sink.append(data);
      await sink.forget(this.video.currentTime - BEHIND_S);
      last = wanted;
    }
  }

  // Audio lies where its clock says, on the places that the video's epochs have.
  async #placeAudio(audio) {
    let before = null;
    for (const segment of audio.segments) {
      if (segment.start_s === null && before?.epoch === segment.epoch && before.start_s !== null) {
        segment.start_s = before.start_s + before.duration_s;
      } else if (segment.start_s === null && this.places.has(segment.epoch)) {
        const clock = clockOf(await this.#init(segment.init));
        const data = await bytes(segment.url, this.aborter.signal);
        segment.start_s = this.places.now(segment.epoch) + startOf(data, clock);
      }
      before = segment;
    }
  }
}
