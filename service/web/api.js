// Talks to the service: the key, JSON calls, and event streams read with fetch (EventSource cannot send a key).

const STORE = "agent-loop-key";

export const key = {
  get: () => sessionStorage.getItem(STORE) ?? localStorage.getItem(STORE) ?? "",
  set(value, keep) {
    key.forget();
    (keep ? localStorage : sessionStorage).setItem(STORE, value);
  },
  forget() {
    localStorage.removeItem(STORE);
    sessionStorage.removeItem(STORE);
  },
};

// The session shown: sent with every request, so that a balancer keeps it with its variant.
export const sticky = { session: null };

// An error with the service's own words; `status` is 0 when there was no answer.
export class ApiError extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function request(path, { method = "GET", body, signal, headers = {} } = {}) {
  const sent = { ...headers };
  if (key.get()) sent.Authorization = `Bearer ${key.get()}`;
  if (sticky.session) sent["X-Session-Id"] = sticky.session;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers: sent, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service does not answer. Is it running?", 0, "unreachable");
  }
  if (!response.ok) {
    const text = await response.text();
    let problem = {};
    try { problem = JSON.parse(text).error ?? {}; } catch { /* not JSON: the status has to do */ }
    const wait = response.headers.get("Retry-After");
    const again = wait ? ` Try again in ${wait} s.` : "";
    throw new ApiError((problem.message ?? `The service answered with status ${response.status}.`) + again, response.status, problem.code);
  }
  return response;
}

export const get = async (path) => (await request(path)).json();
export const post = async (path, body = {}) => (await request(path, { method: "POST", body })).json();

// Events of a run. A stream that breaks is taken up again after the last event that was seen, so none is lost.
export async function* startRun(body, signal, created) {
  const response = await request("/v1/runs", { method: "POST", body: { ...body, stream: true }, signal });
  const id = response.headers.get("X-Run-Id");
  created(id, response.headers.get("X-Session-Id"));
  yield* follow(id, signal, 0, response);
}

export async function* follow(id, signal, after = 0, response = null) {
  let failures = 0;
  for (;;) {
    try {
      response ??= await request(`/v1/runs/${id}/events?after=${after}`, { signal });
      for await (const event of read(response.body)) {
        if (event.type === "stream.error") break;
        if (event.seq <= after) continue;
        after = event.seq;
        failures = 0;
        yield event;
        if (event.type === "run.ended") return;
      }
    } catch (error) {
      if (error.name === "AbortError" || (error.status && error.status < 500)) throw error;
      if (failures >= 6) throw error;
    }
    response = null;
    await pause(Math.min(500 * 2 ** failures++, 8000), signal);
  }
}

export async function allEvents(id) {
  const events = [];
  for (let more = true; more; ) {
    const page = await get(`/v1/runs/${id}/events?stream=false&limit=1000&after=${events.at(-1)?.seq ?? 0}`);
    events.push(...page.data);
    more = page.has_more;
  }
  return events;
}

// Server-sent events: blocks separated by an empty line, `data:` lines joined; bytes may be cut anywhere.
export async function* read(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const blocks = rest.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        let type = "message";
        const data = [];
        for (const line of block.split("\n")) {
          if (line.startsWith("event:")) type = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
        }
        if (data.length) yield { type, ...JSON.parse(data.join("\n")) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("aborted", "AbortError")); }, { once: true });
  });
}
