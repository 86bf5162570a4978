// A conversation with one model. It is kept in this tab's memory and nowhere else.

import { errorOf, events, send } from "./api.js";
import { $, announce, el, setText, told } from "./dom.js";
import { render } from "./markdown.js";
import { isRemote } from "./models.js";
import { models, subscribe } from "./store.js";

const NUMBERS = { temperature: "chat-temperature", top_p: "chat-top-p", max_tokens: "chat-max-tokens" };

let conversation = [];
let ending = null;

function drawModels() {
  const select = $("chat-model");
  const usable = [...models.values()].filter((model) => model.state !== "downloading").sort((one, other) => (one.state === "running" ? 0 : 1) - (other.state === "running" ? 0 : 1) || (one.id < other.id ? -1 : 1));
  const wanted = usable.map((model) => [model.id, model.state === "running" || isRemote(model) ? model.id : `${model.id} (starts with the first message)`]);
  const now = [...select.options].map(({ value, text }) => [value, text]);
  if (JSON.stringify(wanted) !== JSON.stringify(now)) {
    const chosen = select.value;
    select.replaceChildren(...wanted.map(([value, text]) => el("option", { value }, text)));
    if (models.has(chosen)) select.value = chosen;
  }
  drawEmpty();
}

function drawEmpty() {
  const none = $("chat-model").options.length === 0;
  $("chat-text").disabled = none;
  $("chat-send").disabled = none;
  if (conversation.length) return;
  const text = none ? "No model is ready to talk yet." : "Ask something.";
  const shown = $("chat-log").querySelector(".chat-empty");
  if (shown) setText(shown, text);
  else $("chat-log").replaceChildren(el("p", { className: "chat-empty" }, text));
}

function messageBox(who, kind) {
  const said = el("div", { className: "said" });
  const box = el("article", { className: `message ${kind}`, ariaLabel: who }, el("h2", {}, who), said);
  $("chat-log").append(box);
  return { box, said };
}

const nearEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 120;
const toEnd = () => scrollTo({ top: document.documentElement.scrollHeight });

/** Draw an answer as it grows, at most once for each frame. */
class Answer {
  constructor(model) {
    Object.assign(this, messageBox(model, "assistant"));
    this.text = "";
    this.thoughts = "";
    this.waiting = el("span", { className: "waiting", role: "img", ariaLabel: "The model is at it" });
    this.said.append(this.waiting);
    this.due = false;
  }

  take({ content, reasoning_content: thoughts }) {
    this.text += content ?? "";
    this.thoughts += thoughts ?? "";
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    if (!this.due) return;
    this.due = false;
    const follow = nearEnd();
    if (this.thoughts) {
      if (!this.thinking) {
        this.thinking = el("details", { className: "thinking" }, el("summary", {}, "Thoughts"), el("p"));
        this.said.before(this.thinking);
      }
      setText(this.thinking.querySelector("p"), this.thoughts);
    }
    if (this.text) this.said.replaceChildren(render(this.text));
    if (follow) toEnd();
  }

  end(foot) {
    this.due = true;
    this.draw();
    this.waiting.remove();
    if (foot) this.box.append(el("p", { className: "foot quiet" }, foot));
    if (nearEnd()) toEnd();
  }
}

function settings() {
  const chosen = {};
  for (const [name, id] of Object.entries(NUMBERS)) {
    const value = $(id).valueAsNumber;
    if (!Number.isNaN(value)) chosen[name] = value;
  }
  return chosen;
}

function busy(isBusy) {
  $("chat-log").setAttribute("aria-busy", String(isBusy));
  setText($("chat-send"), isBusy ? "Stop" : "Send");
  $("chat-send").classList.toggle("primary", !isBusy);
}

async function ask(model) {
  const system = $("chat-system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...conversation];
  ending = new AbortController();
  busy(true);
  const answer = new Answer(model);
  const began = performance.now();
  let first = 0;
  let tokens = 0;
  let why = "";
  let failed = null;
  let whole = false;
  try {
    const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...settings() };
    const response = await send("POST", "/v1/chat/completions", { body, signal: ending.signal });
    for await (const event of events(response)) {
      if (event.data === "[DONE]") {
        whole = true;
        break;
      }
      const chunk = JSON.parse(event.data);
      if (chunk.error) throw errorOf(chunk, 500);
      const choice = chunk.choices?.[0];
      if (choice?.delta) {
        first ||= performance.now();
        answer.take(choice.delta);
      }
      if (choice?.finish_reason === "length") why = "cut at the longest answer";
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
    if (!whole) failed = { message: "The answer broke off.", hint: "See what the model says of itself among the models." };
  } catch (error) {
    if (error.name === "AbortError") why = "stopped";
    else failed = error;
  }
  ending = null;
  const seconds = (performance.now() - first) / 1000;
  const speed = first && tokens > 1 ? `${tokens} tokens, ${(tokens / Math.max(seconds, 0.001)).toFixed(0)} a second, first after ${((first - began) / 1000).toFixed(1)} s` : "";
  answer.end([speed, why].filter(Boolean).join(" · "));
  if (answer.text) conversation.push({ role: "assistant", content: answer.text });
  if (failed) fail(answer, failed, model);
  busy(false);
  announce(failed ? failed.message : why === "stopped" ? "Stopped" : "The answer is there");
}

function fail(answer, error, model) {
  const box = told(error);
  if (answer.text) conversation.pop();
  const again = el("button", { type: "button" }, "Try again");
  again.addEventListener("click", () => {
    answer.box.remove();
    ask(model);
    $("chat-text").focus();
  });
  box.append(el("p", { className: "buttons" }, again));
  answer.box.append(box);
}

function submit(event) {
  event.preventDefault();
  if (ending) {
    ending.abort();
    return;
  }
  const text = $("chat-text").value.trim();
  const model = $("chat-model").value;
  if (!text || !model) return;
  if (!conversation.length) $("chat-log").replaceChildren();
  for (const button of $("chat-log").querySelectorAll(".told button")) button.remove();
  conversation.push({ role: "user", content: text });
  messageBox("You", "user").said.append(text);
  $("chat-text").value = "";
  ask(model);
  toEnd();
}

function clear() {
  ending?.abort();
  conversation = [];
  $("chat-log").replaceChildren();
  drawEmpty();
  $("chat-text").focus();
}

/** Choose a model for the conversation, as a link to `#chat/ID` asks. */
export function choose(id) {
  if (models.has(id)) {
    drawModels();
    $("chat-model").value = id;
  }
}

export function setUp() {
  subscribe(drawModels);
  $("chat-form").addEventListener("submit", submit);
  $("chat-new").addEventListener("click", clear);
  $("chat-text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!ending) $("chat-form").requestSubmit();
    }
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && ending && !document.querySelector("dialog[open]")) ending.abort();
  });
}
