// Asks the REST service. The token is in the memory of this module, goes in a header, and is nowhere else.

export class Problem extends Error {
  /** What was refused, as the service tells it (RFC 9457). */
  constructor(told) {
    super(told.detail);
    this.status = told.status;
    this.error = told.error ?? "";
    this.advice = told.advice ?? "";
    this.about = told.about ?? {};
  }
}

/** Nothing answers at the service's address. */
export class Away extends Error {
  constructor() {
    super("the service does not answer");
    this.status = 0;
    this.error = "Away";
    this.advice = "see whether it runs, and whether this machine has a network";
    this.about = {};
  }
}

const UNAUTHENTICATED = 401;
const PAGE = 250; // items of a list in one answer
const SILENT = 15000; // milliseconds without an event, after which the service is taken for gone

export const part = encodeURIComponent;

/** A session: its token, and the requests that are made in it. */
export class Session {
  #token;
  #onEnd;

  constructor(opened, onEnd) {
    this.#token = opened.token;
    this.#onEnd = onEnd;
    this.holder = opened.holder;
    this.ends = opened.ends * 1000;
    this.over = false;
  }

  /** Log in. */
  static async open(login, onEnd = () => {}) {
    return new Session(await answer("POST", "/v1/sessions", { body: login }), onEnd);
  }

  get(path, query = {}) {
    const words = new URLSearchParams(query).toString();
    return this.#ask("GET", words ? `${path}?${words}` : path);
  }

  /** Ask for what changes something; sent again by the browser or by hand, `key` has it done once. */
  act(method, path, { body, key = null, headers = {} } = {}) {
    return this.#ask(method, path, { body, headers: key ? { ...headers, "Idempotency-Key": key } : headers });
  }

  /** All items of a list, page by page, up to a number of them. */
  async every(path, query = {}, most = 5000) {
    const items = [];
    let cursor = "";
    do {
      const page = await this.get(path, { limit: PAGE, ...query, ...(cursor ? { cursor } : {}) });
      items.push(...page.items);
      cursor = page.next;
    } while (cursor && items.length < most);
    return items;
  }

  /** Log out; the token is forgotten whether or not the service hears of it. */
  async close() {
    if (this.over) return;
    this.over = true;
    const token = this.#token;
    this.#token = "";
    try {
      await answer("DELETE", "/v1/sessions/current", { token });
    } catch {
      // the session dies by itself, unused
    }
  }

  /** Tell the events of a path to `hear(kind, data)` until `signal` aborts, the service is away, or the session over. */
  async listen(path, hear, signal) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENT);
    const either = AbortSignal.any([signal, silence.signal]);
    try {
      const response = await request("GET", path, { token: this.#token, signal: either });
      if (!response.ok) throw this.#noted(await problemOf(response));
      for await (const [kind, data] of events(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENT);
        hear(kind, data);
      }
    } catch (error) {
      if (signal.aborted || error instanceof Problem) throw error;
      throw new Away();
    } finally {
      clearTimeout(timer);
    }
    throw new Away();
  }

  async #ask(method, path, options = {}) {
    try {
      return await answer(method, path, { ...options, token: this.#token });
    } catch (error) {
      throw this.#noted(error);
    }
  }

  /** A session that the service knows no more is over. */
  #noted(error) {
    if (error.status === UNAUTHENTICATED && !this.over) {
      this.over = true;
      this.#token = "";
      this.#onEnd(error);
    }
    return error;
  }
}

async function request(method, path, { token = "", body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const options = { method, headers: sent, signal, credentials: "omit", cache: "no-store", redirect: "error" };
  try {
    return await fetch(path, { ...options, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Away();
  }
}

async function answer(method, path, options) {
  const response = await request(method, path, options);
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

async function problemOf(response) {
  try {
    return new Problem(await response.json());
  } catch {
    return new Problem({ status: response.status, detail: `the service answered ${response.status}` });
  }
}

/** The events of a stream: pairs of a kind and its data. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      let end;
      while ((end = text.indexOf("\n\n")) >= 0) {
        const event = parsed(text.slice(0, end));
        text = text.slice(end + 2);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(lines) {
  let kind = "message";
  let data = "";
  for (const line of lines.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    if (line.startsWith("data: ")) data += line.slice(6);
  }
  return data ? [kind, JSON.parse(data)] : null;
}
