// A video element that is fed: a MediaSource, its buffers one job after the other, and what is in them.

export class Screen {
  constructor(video) {
    this.video = video;
    this.source = new MediaSource();
    this.sinks = [];
    this.url = URL.createObjectURL(this.source);
    this.opened = new Promise((resolve) => this.source.addEventListener("sourceopen", resolve, { once: true }));
    video.src = this.url;
  }

  async sink(type) {
    await this.opened;
    const sink = new Sink(this.source.addSourceBuffer(type), this.video);
    this.sinks.push(sink);
    return sink;
  }

  end() {
    const { buffered } = this.video;
    return buffered.length ? buffered.end(buffered.length - 1) : 0;
  }

  // Where the next picture is, if `at` lies in a hole; null if it does not, or nothing follows.
  behindHole(at) {
    const { buffered } = this.video;
    for (let i = 0; i < buffered.length; i++) {
      if (at >= buffered.start(i) && at < buffered.end(i) - 0.01) return null;
      if (buffered.start(i) > at) return buffered.start(i);
    }
    return null;
  }

  lengthen(duration_s) {
    const idle = this.sinks.every((sink) => !sink.buffer.updating);
    const longer = !(this.source.duration >= duration_s - 0.001);
    if (this.source.readyState === "open" && idle && longer) this.source.duration = duration_s;
  }

  finish() {
    const idle = this.sinks.every((sink) => !sink.buffer.updating);
    if (this.source.readyState === "open" && idle) this.source.endOfStream();
  }

  close() {
    this.video.removeAttribute("src");
    this.video.load();
    URL.revokeObjectURL(this.url);
  }
}

class Sink {
  constructor(buffer, video) {
    this.buffer = buffer;
    this.video = video;
    this.init = null; // name of the initialisation segment that was appended last
    this.whole = false; // whether it holds all up to the stream's end
    this.last = Promise.resolve();
  }

  // Seconds up to which it holds all from `at` on; `at` itself if nothing is there.
  bufferedFrom(at) {
    const { buffered } = this.buffer;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= at + 0.1 && at < buffered.end(i)) return buffered.end(i);
    }
    return at;
  }

  #run(job) {
    const done = this.last.then(
      () =>
        new Promise((resolve, reject) => {
          this.buffer.onupdateend = resolve;
          this.buffer.onerror = () => reject(new Error(`the browser cannot play this: ${this.video.error?.message}`));
          job(this.buffer);
          if (!this.buffer.updating) resolve();
        }),
    );
    this.last = done.catch(() => {});
    return done;
  }

  begin(name, init, type, offset_s) {
    this.init = name;
    return this.#run((buffer) => {
      buffer.changeType(type);
      buffer.timestampOffset = offset_s;
      buffer.appendBuffer(init);
    });
  }

  async append(data) {
    try {
      await this.#run((buffer) => buffer.appendBuffer(data));
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      await this.forget(this.video.currentTime - 2);
      await this.#run((buffer) => buffer.appendBuffer(data));
    }
  }

  // Drop what lies before `until_s`.
  async forget(until_s) {
    const { buffered } = this.buffer;
    if (buffered.length && buffered.start(0) < until_s) await this.#run((buffer) => buffer.remove(0, until_s));
  }
}
