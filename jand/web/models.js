// The view of all models: one row each, which keeps its elements as long as its model is there, so that focus and what is open stay.

import { call, pathOf } from "./api.js";
import { $, announce, arrange, bytes, duration, el, moment, note, parameters, plural, setText, told } from "./dom.js";
import { facts, models, subscribe } from "./store.js";

const SHOWN = 100;
const WORDS = { starting: "Starting", stopping: "Stopping", restarting: "Restarting" };
const STATES = { running: "Running", downloaded: "Ready", downloading: "Downloading" };

const rows = new Map();

/** Say in a word what the model is doing now. */
export function stateOf(model) {
  if (model.transition) return { word: WORDS[model.transition], kind: "busy" };
  if (model.state === "downloading" && model.paused) return { word: "Paused", kind: "paused" };
  if (model.state === "downloading" && model.error) return { word: "Waiting", kind: "waiting" };
  return { word: STATES[model.state], kind: model.state };
}

export const isRemote = (model) => model.metadata.engine === "api" || ["openai", "azure_openai"].includes(model.import_format);

const sizeOf = (model) => model.files.reduce((sum, file) => sum + (file.present ? file.size ?? 0 : 0), 0);

function describe(model) {
  if (isRemote(model)) return `At ${model.owned_by}`;
  const { architecture, quantization, context_length } = model.details;
  const size = sizeOf(model);
  return [
    architecture,
    model.details.parameters && parameters(model.details.parameters),
    quantization,
    size && bytes(size),
    context_length && `up to ${context_length.toLocaleString("en")} tokens`,
  ]
    .filter(Boolean)
    .join(" · ");
}

function usage(model) {
  if (model.state !== "running") return "";
  const { memory, since } = model.details;
  return [memory && `uses ${bytes(memory)} of memory`, since && `since ${moment(since)}`].filter(Boolean).join(", ");
}

/** Carry out what a button asks for; what goes wrong is shown as a note, since the row may be gone by then. */
export async function act(what, work) {
  try {
    return await work();
  } catch (error) {
    note([`${what}: ${error.message}`, error.hint].filter(Boolean).join(". "), { stays: true });
    return undefined;
  }
}

class Row {
  constructor(id) {
    this.id = id;
    this.state = null;
    this.dot = el("span", { className: "state" }, el("span", { className: "dot", ariaHidden: "true" }));
    this.word = el("span");
    this.dot.append(this.word);
    this.name = el("h3", { id: `model-${crypto.randomUUID()}` }, el("span", {}, id), this.dot);
    this.meta = el("p", { className: "quiet" });
    this.usage = el("p", { className: "quiet" });
    this.main = this.button("", () => this.startOrStop(), "");
    this.chat = el("button", { type: "button", onclick: () => (location.hash = `chat/${encodeURIComponent(id)}`) }, "Chat");
    this.halt = this.button("", () => this.pauseOrResume(), "");
    this.remove = this.button("Delete", () => confirmDelete(this.model), "plain risky");
    for (const [button, verb] of [[this.chat, "Chat with"], [this.remove, "Delete"]]) button.setAttribute("aria-label", `${verb} ${id}`);
    this.bar = el("progress", { max: 1 });
    this.bar.setAttribute("aria-labelledby", this.name.id);
    this.told = el("p", { className: "quiet" });
    this.progress = el("div", { className: "progress", hidden: true }, this.bar, this.told);
    this.trouble = el("div");
    this.facts = el("dl", { className: "facts" });
    this.more = el("details", { ontoggle: () => this.showFacts() }, el("summary", {}, "Details"), this.facts);
    this.element = el(
      "li",
      { className: "row" },
      el("div", { className: "row-head" }, el("div", { className: "row-title" }, this.name, this.meta, this.usage), el("div", { className: "row-actions" }, this.chat, this.main, this.halt, this.remove)),
      this.progress,
      this.trouble,
      this.more,
    );
    this.element.setAttribute("aria-labelledby", this.name.id);
    this.element.dataset.model = id;
  }

  button(label, onclick, className) {
    return el("button", { type: "button", className, onclick }, label);
  }

  update(model) {
    if (model === this.model && model.details.memory === this.memory) return;
    this.model = model;
    this.memory = model.details.memory;
    const { word, kind } = stateOf(model);
    setText(this.word, word);
    this.dot.dataset.state = kind;
    if (this.state !== null && this.state !== word) announce(`${this.id}: ${word}`);
    this.state = word;
    setText(this.meta, describe(model));
    setText(this.usage, usage(model));
    this.usage.hidden = !this.usage.textContent;
    this.updateButtons(model);
    this.updateProgress(model);
    this.updateTrouble(model);
    this.showFacts();
  }

  updateButtons(model) {
    const stops = model.state === "running" || model.transition === "starting" || model.transition === "restarting";
    this.relabel(this.main, stops ? "Stop" : "Start");
    this.main.hidden = model.state === "downloading" && !model.transition;
    if (model.transition === "stopping") this.main.setAttribute("aria-disabled", "true");
    else this.main.removeAttribute("aria-disabled");
    this.chat.hidden = model.state === "downloading" || model.parameters.init.embedding === true && model.details.architecture?.includes("bert");
    this.halt.hidden = model.state !== "downloading" || isRemote(model);
    this.relabel(this.halt, model.paused ? "Resume" : model.error ? "Try again" : "Pause");
  }

  relabel(button, label) {
    setText(button, label);
    button.setAttribute("aria-label", `${label} ${this.id}`);
  }

  updateProgress(model) {
    const loading = model.transition && model.transition !== "stopping" ? model.details.load_progress : undefined;
    const { progress } = model;
    this.progress.hidden = !(progress || loading !== undefined);
    if (loading !== undefined) {
      this.bar.value = loading;
      setText(this.told, `Loading, ${Math.round(loading * 100)} %`);
    } else if (progress) {
      const { bytes_done: done, bytes_total: total, bytes_per_second: speed, eta_seconds: left } = progress;
      if (total) this.bar.value = done / total;
      else this.bar.removeAttribute("value");
      const share = total ? `${Math.floor((done / total) * 100)} %, ${bytes(done)} of ${bytes(total)}` : bytes(done);
      setText(this.told, [share, speed > 0 && `${bytes(speed)}/s`, left !== null && speed > 0 && `${duration(left)} left`].filter(Boolean).join(" · "));
    }
  }

  updateTrouble(model) {
    const key = JSON.stringify([model.error, model.restart_needed, model.details.last_log]);
    if (key === this.troubleKey) return;
    this.troubleKey = key;
    const boxes = [];
    if (model.error) {
      const lines = model.details.last_log;
      const box = told(model.error);
      if (model.error.retry_at) box.append(el("p", { className: "hint" }, `Next try at ${moment(model.error.retry_at)}`));
      if (lines) box.append(el("details", {}, el("summary", {}, "Its last lines"), el("pre", {}, lines.join("\n"))));
      boxes.push(box);
    }
    if (model.restart_needed) boxes.push(told({ message: "Its JSON has changed since it was started.", hint: "Stop and start it to use what is new." }, { warn: true }));
    this.trouble.replaceChildren(...boxes);
  }

  showFacts() {
    if (!this.more.open) return;
    const { model } = this;
    const { details } = model;
    const files = model.files.map((file) => `${file.name}${file.size === null ? "" : `, ${bytes(file.size)}`}${file.present ? "" : ", not there"}`);
    const init = Object.entries(model.parameters.init).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
    const pairs = [
      ["From", model.origin],
      ["JSON", model.path],
      ["Files", files.length ? el("ul", {}, files.map((file) => el("li", {}, file))) : null],
      ["Also called", model.aliases.join(", ")],
      ["Chosen because", details.reason],
      ["Taken from", Object.values(details.reused_from ?? {}).join(", ")],
      ["Loaded with", init.join(", ")],
      ["Loaded in", details.loaded_in !== undefined ? `${details.loaded_in.toFixed(1)} s` : null],
      ["Process", details.pid],
      ["Licence", details.license],
    ].filter(([, value]) => value);
    const key = JSON.stringify(pairs.map(([name, value]) => [name, value instanceof Node ? files : value]));
    if (key === this.factsKey) return;
    this.factsKey = key;
    this.facts.replaceChildren(...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  async startOrStop() {
    if (this.main.getAttribute("aria-disabled") === "true") return;
    const verb = this.main.textContent === "Stop" ? "stop" : "start";
    // The answer to a start may take minutes; the events tell how it goes.
    const path = verb === "start" ? `${pathOf(this.id, "start")}?wait=false` : pathOf(this.id, "stop");
    await act(`Cannot ${verb} ${this.id}`, () => call("PUT", path));
  }

  async pauseOrResume() {
    const verb = this.halt.textContent === "Pause" ? "pause" : "resume";
    await act(`Cannot ${verb} ${this.id}`, () => call("PUT", pathOf(this.id, verb)));
  }
}

let doomed = null;

export function confirmDelete(model) {
  doomed = model;
  setText($("delete-title"), `Delete ${model.id}?`);
  const running = model.state === "running" ? "It is stopped first. " : "";
  setText($("delete-text"), isRemote(model) ? `${running}Its JSON is removed.` : `${running}Its JSON is removed, and those of its binaries that lie in its folder and no other model uses:`);
  const files = [model.path.split("/").at(-1), ...(isRemote(model) ? [] : model.files.filter((file) => file.present).map((file) => `${file.name}, ${bytes(file.size)}`))];
  $("delete-files").replaceChildren(...files.map((file) => el("li", {}, file)));
  $("delete-keep").checked = false;
  $("delete-keep").closest("p").hidden = isRemote(model);
  $("delete-dialog").showModal();
  $("delete-cancel").focus();
}

async function carryOutDelete(event) {
  event.preventDefault();
  const { id } = doomed;
  const keep = $("delete-keep").checked;
  $("delete-dialog").close();
  const after = [...$("models").children];
  const at = after.findIndex((row) => row.dataset.model === id);
  const done = await act(`Cannot delete ${id}`, () => call("DELETE", `${pathOf(id)}${keep ? "?keep_files=true" : ""}`));
  if (!done) return;
  const kept = done.kept.map(({ name, why }) => `${name} (${why})`).join(", ");
  note(kept ? `${id} is deleted. Kept: ${kept}.` : `${id} is deleted.`, { stays: Boolean(kept) });
  // Whoever works by keyboard goes on where the row was.
  const next = after[at + 1] ?? after[at - 1];
  (next?.querySelector("button:not([hidden])") ?? $("models-title")).focus();
}

function summarize() {
  const all = [...models.values()];
  const running = all.filter(({ state }) => state === "running").length;
  const memory = facts.health?.memory;
  const parts = [plural(all.length, "model"), `${running} running`];
  if (memory?.budget) parts.push(`${bytes(memory.reserved)} of ${bytes(memory.budget)} memory taken`);
  return parts.join(" · ");
}

const collator = new Intl.Collator("en", { numeric: true });
/** What is shown where not all is: running models before those that arrive, and those before the rest. */
const rank = (model) => (model.state === "running" || model.transition ? 0 : model.state === "downloading" ? 1 : 2);

function draw() {
  const words = $("filter").value.trim().toLowerCase();
  const all = [...models.values()].filter((model) => !words || model.id.toLowerCase().includes(words));
  const many = all.length > SHOWN;
  all.sort((one, other) => (many && rank(one) - rank(other)) || collator.compare(one.id, other.id));
  for (const id of rows.keys()) if (!models.has(id)) rows.delete(id);
  const shown = all.slice(0, SHOWN).map((model) => {
    if (!rows.has(model.id)) rows.set(model.id, new Row(model.id));
    rows.get(model.id).update(model);
    return rows.get(model.id).element;
  });
  arrange($("models"), shown);
  const known = facts.connection !== "connecting";
  $("no-models").hidden = !known || models.size > 0;
  $("filter-row").hidden = models.size <= 8;
  $("more-models").hidden = all.length <= SHOWN;
  setText($("more-models"), `${all.length - SHOWN} more: filter to find them.`);
  setText($("summary"), known && models.size ? summarize() : "");
  if (facts.health?.folder) setText($("folder-name"), facts.health.folder);
}

export function setUp() {
  subscribe(draw);
  $("filter").addEventListener("input", draw);
  $("delete-form").addEventListener("submit", carryOutDelete);
  $("delete-cancel").addEventListener("click", () => $("delete-dialog").close());
}
