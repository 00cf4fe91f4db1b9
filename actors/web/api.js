// The HTTP API: calls with the token, problems as errors, Server-Sent Events.

const TOKEN = "limpid-token"; // in sessionStorage: gone with the tab

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let askForToken = async () => false; // set by the page: true once there is another token to try

export function onTokenNeeded(ask) {
  askForToken = ask;
}

export function setToken(token) {
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

async function problemOf(answer) {
  let detail = `${answer.status} ${answer.statusText}`;
  try {
    const problem = await answer.json();
    if (typeof problem.detail === "string") detail = problem.detail;
  } catch {
    // no problem document: the status says all that is known
  }
  return new Problem(answer.status, detail);
}

async function answerTo(path, options) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...options.headers };
    if (token) headers.Authorization = `Bearer ${token}`;
    let answer;
    try {
      answer = await fetch(path, { cache: "no-cache", ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "the service cannot be reached");
    }
    if (answer.ok) return answer;
    const problem = await problemOf(answer);
    if (answer.status !== 401 || !(await askForToken(problem.message, token))) throw problem;
  }
}

export async function call(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const answer = await answerTo(path, options);
  return answer.status === 204 ? null : answer.json();
}

export async function text(path) {
  return (await answerTo(path, {})).text();
}

export async function bytes(path, signal) {
  return new Uint8Array(await (await answerTo(path, { signal, cache: "default" })).arrayBuffer());
}

export async function blob(path) {
  return (await answerTo(path, {})).blob();
}

// Follow Server-Sent Events until `signal` says stop; goes on behind the last one after a break. The browser's own
// EventSource cannot send a token.
export async function follow(path, signal, onEvent) {
  let last = "";
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream" };
      if (last) headers["Last-Event-ID"] = last;
      const answer = await answerTo(path, { headers, signal });
      for await (const event of eventsIn(answer.body)) {
        last = event.id || last;
        onEvent(JSON.parse(event.data));
      }
    } catch (error) {
      if (signal.aborted || error.status === 404) return;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function* eventsIn(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { id: "", data: "" };
      for (const line of block.split("\n")) {
        const [, name, content] = /^([^:]*):? ?(.*)$/.exec(line);
        if (name === "id") event.id = content;
        if (name === "data") event.data += content;
      }
      if (event.data) yield event;
    }
  }
}
