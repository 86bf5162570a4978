// What the daemon has, as this page knows it: every model and every problem, kept up to date by the events.

import { ApiError, call, events, send } from "./api.js";

const AGAIN_MS = 1000;

export const models = new Map();
export const problems = new Map();
export const facts = { health: null, connection: "connecting" };

const listeners = new Set();
let due = false;

/** Call `listener` after something has changed, at most once for each frame that is drawn. */
export function subscribe(listener) {
  listeners.add(listener);
}

export function changed() {
  if (due) return;
  due = true;
  const tell = () => {
    if (!due) return;
    due = false;
    for (const listener of listeners) listener();
  };
  requestAnimationFrame(tell);
  // A page in the background draws no frames.
  setTimeout(tell, 500);
}

const problemKey = (problem) => JSON.stringify([problem.path, problem.code, problem.line, problem.column, problem.message]);

function apply(event) {
  const data = JSON.parse(event.data);
  if (event.type === "model.removed") models.delete(data.id);
  else if (event.type.startsWith("model.")) models.set(data.id, keepLive(data));
  else if (event.type === "problem.found") problems.set(problemKey(data), data);
  else if (event.type === "problem.cleared") problems.delete(problemKey(data));
}

/** An event may be older than what was asked for since: memory comes with an answer about one model alone. */
function keepLive(model) {
  const known = models.get(model.id)?.details;
  if (known?.pid !== undefined && known.pid === model.details.pid) model.details.memory = known.memory;
  return model;
}

async function load() {
  const [listed, found] = await Promise.all([call("GET", "/v1/models"), call("GET", "/v1/problems")]);
  models.clear();
  for (const model of listed.data) models.set(model.id, model);
  problems.clear();
  for (const problem of found.data) problems.set(problemKey(problem), problem);
}

/** Follow the events for ever. Each connection begins with the whole, since what went by unseen may include what the daemon has forgotten. */
export async function live() {
  let last = "";
  for (;;) {
    const ending = new AbortController();
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const stream = await send("GET", "/v1/events", { headers, signal: ending.signal });
      let waiting = [];
      const loaded = load().then(() => {
        waiting.forEach(apply);
        waiting = null;
        facts.connection = "live";
        changed();
        look();
      });
      loaded.catch(() => ending.abort());
      for await (const event of events(stream)) {
        if (event.id) last = event.id;
        if (waiting) waiting.push(event);
        else apply(event);
        changed();
      }
    } catch (error) {
      if (!(error instanceof ApiError || error.name === "AbortError" || error instanceof TypeError)) throw error;
    } finally {
      ending.abort();
    }
    facts.connection = "lost";
    changed();
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** Ask for what no event tells: the memory of running models and of the whole. */
export async function look() {
  const running = [...models.values()].filter((model) => model.state === "running" && model.details.pid !== undefined);
  const answers = await Promise.allSettled([call("GET", "/health"), ...running.map(({ id }) => call("GET", `/v1/models/${encodeURIComponent(id)}`))]);
  const [health, ...shown] = answers.map(({ value }) => value);
  if (health) facts.health = health.details;
  for (const model of shown) {
    if (model && models.get(model.id)?.details.pid === model.details.pid) models.get(model.id).details.memory = model.details.memory;
  }
  changed();
}
