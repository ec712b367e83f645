// Server-sent events over fetch: EventSource can send no token, but for one in the URL, where logs would have it.

const SILENCE = 40_000; // ms; the server says something every 15 s
const LATEST_RETRY = 15_000;
const UNAUTHENTICATED = 16;
const FINAL = new Set([3, 5, 7]); // of gRPC: what asking again would not mend

export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }

  get unauthenticated() {
    return this.code === UNAUTHENTICATED;
  }

  get final() {
    return this.unauthenticated || FINAL.has(this.code);
  }
}

export const address = (path) => new URL(path, import.meta.url);

export async function get(path, token, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(address(path), { headers, signal, cache: "no-store", credentials: "same-origin" });
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(said.code ?? 14, said.message ?? `the server answered ${answer.status}`);
}

// Calls on.event(name, data) for each event, on.lost(error) whenever the stream breaks and is opened again later, and
// on.refused(error) once if that would not help. Returns what ends it.
export function follow(path, token, on) {
  const ending = new AbortController();
  (async () => {
    for (let failures = 0; !ending.signal.aborted; ) {
      try {
        await once(path, token, ending.signal, (name, data) => {
          failures = 0;
          on.event(name, data);
        });
      } catch (error) {
        if (ending.signal.aborted) return;
        if (error instanceof Refused && error.final) return on.refused(error);
        on.lost(error);
        failures += 1;
        await pause(Math.min(LATEST_RETRY, 500 * 2 ** failures) * (0.75 + Math.random() / 2), ending.signal);
      }
    }
  })();
  return () => ending.abort();
}

async function once(path, token, signal, tell) {
  const silence = new AbortController();
  const timer = { id: 0 };
  const heard = () => {
    clearTimeout(timer.id);
    timer.id = setTimeout(() => silence.abort(new Error("the server is silent")), SILENCE);
  };
  heard();
  try {
    const answer = await get(path, token, AbortSignal.any([signal, silence.signal]));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      parts.forEach((part) => dispatch(part, tell));
    }
  } finally {
    clearTimeout(timer.id);
  }
}

function dispatch(part, tell) {
  const found = /^event: (\w+)\ndata: (.*)$/.exec(part);
  if (!found) return;
  const data = JSON.parse(found[2]);
  if (found[1] === "refused") throw new Refused(data.code, data.message);
  tell(found[1], data);
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
