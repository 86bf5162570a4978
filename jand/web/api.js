// The daemon's API: calls, streams and uploads, each with the token where one is set.

const TOKEN = "jand-token";
const HINT = "; hint: ";

let askForToken = () => Promise.reject(new Error("nobody asks for the token"));

/** `ask` shows the dialog and returns a promise that is kept once another token is in the session. */
export function onUnauthorized(ask) {
  askForToken = ask;
}

export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  if (token === null) return {};
  // A header holds bytes: what is typed goes out as UTF-8, as the daemon reads it.
  return { Authorization: `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}` };
}

/** What the daemon answered in place of what was asked for, in its own words. */
export class ApiError extends Error {
  constructor(message, { hint = "", code = "", status = 0 } = {}) {
    super(message);
    Object.assign(this, { hint, code, status });
  }
}

export function errorOf(content, status) {
  const told = content?.error;
  if (typeof told?.message !== "string") return new ApiError(`the daemon answered with status ${status}`, { status });
  const [message, hint = ""] = told.message.split(HINT);
  return new ApiError(message, { hint, code: told.code ?? "", status });
}

const unreachable = () =>
  new ApiError("cannot reach the daemon", { hint: "it may have been stopped; this page goes on when it is back", code: "unreachable" });

/** Send one request and return the response once it is a good one. Asks for the token as often as it is wanted. */
export async function send(method, path, { body, headers = {}, signal } = {}) {
  for (;;) {
    const kind = body === undefined ? {} : { "Content-Type": "application/json" };
    let answer;
    try {
      answer = await fetch(path, {
        method,
        headers: { ...headers, ...kind, ...authorization() },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        cache: "no-store",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw unreachable();
    }
    if (answer.ok) return answer;
    const content = await answer.json().catch(() => null);
    if (answer.status !== 401) throw errorOf(content, answer.status);
    await askForToken();
  }
}

export async function call(method, path, options) {
  return (await send(method, path, options)).json();
}

export const pathOf = (id, verb = "") => `/v1/models/${encodeURIComponent(id)}${verb && `/${verb}`}`;

/** Yield the server-sent events of a response as `{id, type, data}`, by the rules of the HTML standard as far as JSON streams need them. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { id: "", type: "message", data: [] };
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = { id: "", type: "message", data: [] };
          continue;
        }
        const [, name, text] = /^([^:]*):? ?([\s\S]*)$/.exec(line);
        if (name === "data") event.data.push(text);
        else if (name === "id") event.id = text;
        else if (name === "event") event.type = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Send a file with its progress, which fetch cannot tell. Returns what the daemon answers; `abort` in the returned pair ends it. */
export function upload(folder, name, file, onProgress) {
  let request = new XMLHttpRequest();
  let cancelled = false;
  const once = () =>
    new Promise((resolve, reject) => {
      request = new XMLHttpRequest();
      request.open("PUT", `/v1/uploads/${encodeURIComponent(folder)}/${encodeURIComponent(name)}`);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      for (const [header, value] of Object.entries(authorization())) request.setRequestHeader(header, value);
      request.upload.onprogress = (event) => onProgress(event.loaded);
      request.onload = () => resolve(request);
      request.onerror = () => reject(new ApiError("the connection broke off", { hint: "send it again", code: "unreachable" }));
      request.onabort = () => reject(new ApiError("cancelled", { code: "cancelled" }));
      request.send(file);
    });
  const run = async () => {
    for (;;) {
      if (cancelled) throw new ApiError("cancelled", { code: "cancelled" });
      const done = await once();
      let content = null;
      try {
        content = JSON.parse(done.responseText);
      } catch {
        // Whatever it is, it is no answer of the daemon's.
      }
      if (done.status === 201) return content;
      if (done.status !== 401) throw errorOf(content, done.status);
      await askForToken();
    }
  };
  const abort = () => {
    cancelled = true;
    request.abort();
  };
  return { result: run(), abort };
}
