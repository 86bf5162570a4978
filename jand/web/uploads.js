// Files that are dropped on the page: into which folder each goes, one after another, with progress.

import { upload } from "./api.js";
import { $, announce, bytes, el, plural, setText, told, note } from "./dom.js";

const ARRIVES = /\.(json|gguf|bin|proj|ggml)$/i;
// A repository's own JSONs say nothing to the daemon, and what begins with a dot is hidden.
const LEFT_OUT = /^(?:\..*|(?:config|tokenizer.*|generation_config.*|.*_map|.*\.index|added_tokens|vocab|merges|preprocessor_config|chat_template)\.json)$/i;
const PART = /-\d{5}-of-\d{5}$/;
const IS_JSON = /\.json$/i;

const queue = [];
let working = false;

const stemOf = (name) => name.replace(ARRIVES, "").replace(PART, "");

/** Make a folder's name of what a file is called. */
const folderName = (text) => text.replace(/[<>:"|?*\\\u0000-\u001f\u007f]+/g, "-").replace(/^[.\s-]+|[.\s]+$/g, "") || "model";

/** Say for each of `found`, `{path, file}`, where it goes: folders stay what they are, and what came loose is put together as it belongs. */
export function sort(found) {
  const wanted = found.filter(({ path }) => ARRIVES.test(path) && !path.split("/").some((part) => LEFT_OUT.test(part)));
  const loose = wanted.filter(({ path }) => !path.includes("/"));
  const jsons = loose.filter(({ path }) => IS_JSON.test(path));
  const isProjector = (path) => /mmproj|\.proj$/i.test(path);
  const weights = loose.find(({ path }) => !IS_JSON.test(path) && !isProjector(path));
  const together = jsons.length === 1 ? stemOf(jsons[0].path) : null;
  return wanted.map(({ path, file }) => {
    const [first, ...rest] = path.split("/");
    if (rest.length) return { folder: folderName(first), name: rest.join("/"), file };
    const own = isProjector(path) && weights ? stemOf(weights.path) : stemOf(path);
    return { folder: folderName(together ?? own), name: path, file };
  });
}

/** Send what was dropped or chosen. Binaries go before their JSONs: a JSON that comes first would have them fetched. */
export function take(found) {
  const sorted = sort(found);
  const left = found.length - sorted.length;
  if (!sorted.length) {
    note(found.length ? "Nothing to add: models are .gguf files and their .json files." : "There is nothing in it.", { stays: true });
    return;
  }
  if (left) note(`${plural(left, "file")} left out: no part of a model by ${left === 1 ? "its name" : "their names"}.`);
  sorted.sort((one, other) => IS_JSON.test(one.name) - IS_JSON.test(other.name));
  $("uploads-box").hidden = false;
  for (const each of sorted) queue.push(show(each));
  location.hash = "models";
  announce(`${plural(sorted.length, "file")} to send`);
  work();
}

function show(each) {
  const label = `${each.folder}/${each.name}`;
  const bar = el("progress", { max: each.file.size || 1, value: 0, ariaLabel: label });
  const text = el("p", { className: "quiet" }, `Waiting, ${bytes(each.file.size)}`);
  const close = el("button", { type: "button", className: "plain", ariaLabel: `Cancel ${label}` }, "Cancel");
  const body = el("div", { className: "progress" }, bar, text);
  const row = el("li", { className: "row" }, el("div", { className: "row-head" }, el("div", { className: "row-title" }, el("h3", {}, label)), el("div", { className: "row-actions" }, close)), body);
  const item = { ...each, label, bar, text, close, body, row, abort: null, cancelled: false };
  close.addEventListener("click", () => {
    item.cancelled = true;
    if (item.abort) item.abort();
    else discard(item);
  });
  $("uploads").append(row);
  return item;
}

function discard(item) {
  item.row.remove();
  $("uploads-box").hidden = $("uploads").children.length === 0;
}

async function work() {
  if (working) return;
  working = true;
  while (queue.length) {
    const item = queue.shift();
    if (!item.cancelled) await sendOne(item);
  }
  working = false;
}

async function sendOne(item) {
  const began = performance.now();
  const { result, abort } = upload(item.folder, item.name, item.file, (sent) => {
    item.bar.value = sent;
    const speed = sent / Math.max(0.001, (performance.now() - began) / 1000);
    const all = sent === item.file.size;
    setText(item.text, all ? "Checking" : `${Math.floor((sent / item.file.size) * 100)} %, ${bytes(sent)} of ${bytes(item.file.size)} · ${bytes(speed)}/s`);
  });
  item.abort = abort;
  try {
    await result;
    item.bar.remove();
    setText(item.text, `Arrived, ${bytes(item.file.size)}`);
    item.close.remove();
    announce(`${item.label} has arrived`);
    setTimeout(() => discard(item), 8000);
  } catch (error) {
    if (error.code === "cancelled") {
      discard(item);
      return;
    }
    const box = told(error);
    box.setAttribute("role", "alert");
    item.body.replaceChildren(box);
    setText(item.close, "Close");
    item.close.setAttribute("aria-label", `Close ${item.label}`);
    item.abort = null;
  }
}

/** Return every file below what was dropped, with the path by which it was dropped. */
async function walk(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: path + entry.name, file }];
  }
  const reader = entry.createReader();
  const entries = [];
  for (;;) {
    // At most a hundred come at once.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    entries.push(...some);
  }
  const inner = await Promise.all(entries.map((each) => walk(each, `${path}${entry.name}/`)));
  return inner.flat();
}

async function dropped(transfer) {
  const items = [...transfer.items].filter(({ kind }) => kind === "file");
  // Entries are there only until the event has been dealt with.
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null);
  const files = items.map((item) => item.getAsFile());
  const found = await Promise.all(entries.map((entry, index) => (entry ? walk(entry) : [{ path: files[index].name, file: files[index] }])));
  take(found.flat());
}

export function setUp() {
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  const shown = (visible) => {
    depth = visible ? depth : 0;
    $("drop-target").hidden = !visible;
  };
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth += 1;
    shown(true);
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event) && (depth -= 1) <= 0) shown(false);
  });
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    shown(false);
    dropped(event.dataTransfer).catch(() => note("Cannot read what was dropped.", { stays: true }));
  });
  for (const [button, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
    $(button).addEventListener("click", () => $(input).click());
    $(input).addEventListener("change", () => {
      take([...$(input).files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
      $(input).value = "";
    });
  }
  addEventListener("beforeunload", (event) => {
    if (working) event.preventDefault();
  });
}
