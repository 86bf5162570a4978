// What could be here: the catalogue, the hub, and what an address would bring, each with what fits this machine; nothing is fetched before somebody says so.

import { call } from "./api.js";
import { $, arrange, bytes, el, note, plural, setText, told } from "./dom.js";
import { act } from "./models.js";
import { models, subscribe } from "./store.js";

const PLACES = {
  gpu: { text: "fits the GPU", className: "place fits" },
  memory: { text: "fits the memory", className: "place fits" },
  nowhere: { text: "does not fit", className: "place no" },
};

const NOT_YET = "not-known-yet";
const AGAIN_MS = 1000;

const rows = new Map();
let offers = null;
let loading = false;

const placeOf = (variant) => el("span", { className: PLACES[variant.place].className }, PLACES[variant.place].text);

/** Return a table of variants; `take`, where it is given, makes the button of each. */
function variants(table, take = null) {
  const head = ["Variant", "Size", "Needs", "Here"].map((title, index) => el("th", { scope: "col", className: index === 1 || index === 2 ? "number" : "" }, title));
  if (take) head.push(el("th", {}, el("span", { className: "sr" }, "Take it")));
  const rows = table.map((variant) =>
    el(
      "tr",
      { className: variant.chosen ? "chosen" : "" },
      el("th", { scope: "row" }, `${variant.quantization ?? variant.name}${variant.chosen ? " (suits best)" : ""}`),
      el("td", { className: "number" }, bytes(variant.size)),
      el("td", { className: "number" }, bytes(variant.need)),
      el("td", {}, placeOf(variant)),
      take ? el("td", {}, take(variant)) : null,
    ),
  );
  return el("div", { className: "variants-box", tabIndex: 0, role: "region", ariaLabel: "Variants" }, el("table", { className: "variants" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

async function register(body, name) {
  const made = await act(`Cannot add ${name}`, () => call("POST", "/v1/models", { body }));
  if (!made) return false;
  note(`${made.id} is added.`);
  location.hash = "models";
  return true;
}

// The catalogue.

function offerRow(offer, common) {
  const chosen = offer.download?.table.find((variant) => variant.chosen);
  const size = offer.download?.bytes_to_fetch;
  const facts = [
    offer.import_format === "openai" || offer.import_format === "azure_openai" ? "remote" : null,
    offer.download?.quantization,
    size ? bytes(size) : null,
    offer.metadata.license,
  ].filter(Boolean);
  const here = models.has(offer.id) || offer.registered;
  const button = el("button", { type: "button", className: here ? "" : "primary", disabled: here, ariaLabel: here ? `${offer.id} is there already` : `Add ${offer.id}` }, here ? "Added" : "Add");
  button.addEventListener("click", async () => {
    button.disabled = true;
    if (await register({ catalog: offer.id }, offer.id)) load();
    else button.disabled = false;
  });
  const title = el("div", { className: "row-title" }, el("h3", {}, offer.id, chosen ? placeOf(chosen) : null));
  const description = offer.metadata.description;
  if (description) title.append(el("p", {}, description));
  title.append(el("p", { className: "quiet" }, [offer.origin, ...facts].join(" · ")));
  const row = el("li", { className: "row" }, el("div", { className: "row-head" }, title, el("div", { className: "row-actions" }, button)));
  if (offer.unknown?.code === NOT_YET) title.append(el("p", { className: "quiet" }, "Looking what it needs"));
  else if (offer.unknown && offer.unknown.message !== common) row.append(el("details", {}, el("summary", {}, "What it needs is not known now"), told(offer.unknown, { warn: true })));
  return row;
}

function drawOffers() {
  if (offers === null) return;
  const reasons = offers.map(({ unknown }) => unknown).filter((unknown) => unknown && unknown.code !== NOT_YET);
  const same = reasons.length > 1 && reasons.every(({ message }) => message === reasons[0].message) ? reasons[0] : null;
  const why = same ? `What these need is not known now: ${same.message}${same.hint ? ` (${same.hint})` : ""}.` : "";
  setText($("offers-note"), offers.length ? why : "The catalogue is empty.");
  const wanted = offers.map((offer) => {
    const key = JSON.stringify([offer, same?.message, models.has(offer.id)]);
    if (rows.get(offer.id)?.key !== key) rows.set(offer.id, { key, row: offerRow(offer, same?.message) });
    return rows.get(offer.id).row;
  });
  arrange($("offers"), wanted);
}

export async function load() {
  if (loading) return;
  loading = true;
  if (offers === null) setText($("offers-note"), "Looking what fits here");
  try {
    offers = (await call("GET", "/v1/catalog")).data;
    drawOffers();
    // An answer is given before the hub has given all of its own.
    if (offers.some(({ unknown }) => unknown?.code === NOT_YET)) setTimeout(() => $("view-catalogue").hidden || load(), AGAIN_MS);
  } catch (error) {
    setText($("offers-note"), [error.message, error.hint].filter(Boolean).join(". "));
  } finally {
    loading = false;
  }
}

// The hub.

function hitRow(hit) {
  const counts = [`${hit.downloads.toLocaleString("en")} downloads`, plural(hit.likes, "like"), hit.gated ? "asks for consent first" : null];
  const take = (variant) => {
    const name = `${hit.repository} ${variant.quantization ?? variant.name}`;
    return el("button", { type: "button", ariaLabel: `Download ${name}`, onclick: () => register({ origin: hit.repository, quantization: variant.quantization }, name) }, "Download");
  };
  return el(
    "li",
    { className: "row" },
    el("h3", {}, hit.repository),
    el("p", { className: "quiet" }, counts.filter(Boolean).join(" · ")),
    hit.note ? told({ message: hit.note }, { warn: true }) : null,
    hit.table.length ? el("details", { open: hit.table.length <= 4 }, el("summary", {}, plural(hit.table.length, "variant")), variants(hit.table, take)) : null,
  );
}

async function search(event) {
  event.preventDefault();
  const words = $("search-words").value.trim();
  if (!words) return;
  $("hits-box").hidden = false;
  setText($("hits-title"), "Searching the hub");
  $("hits").replaceChildren();
  try {
    const hits = (await call("GET", `/v1/search?q=${encodeURIComponent(words)}`)).data;
    setText($("hits-title"), hits.length ? "On the hub" : `Nothing on the hub for “${words}”`);
    $("hits").replaceChildren(...hits.map(hitRow));
  } catch (error) {
    setText($("hits-title"), "On the hub");
    $("hits").replaceChildren(el("li", { className: "row" }, told(error)));
  }
}

// An address, looked at before it is taken.

/** Make a body of what somebody typed: an address of a binary, a catalogue id, or a repository with its quantisation. */
function bodyOf(text) {
  if (/^https?:\/\//i.test(text)) return { download_url: text };
  return text.includes("/") ? { origin: text } : { catalog: text };
}

async function preview(event) {
  event.preventDefault();
  const what = $("add-what").value.trim();
  if (!what) return;
  const body = bodyOf(what);
  $("preview").replaceChildren(el("p", { className: "preview quiet" }, "Looking"));
  let found;
  try {
    found = await call("POST", "/v1/models?dry_run=true", { body });
  } catch (error) {
    $("preview").replaceChildren(told(error));
    return;
  }
  const plan = found.download;
  const size = plan.bytes_to_fetch;
  const take = el("button", { type: "button", className: "primary" }, size ? `Download ${bytes(size)}` : "Add");
  take.addEventListener("click", async () => {
    take.disabled = true;
    if (await register(body, found.id)) {
      $("preview").replaceChildren();
      $("add-form").reset();
    } else take.disabled = false;
  });
  const forget = el("button", { type: "button", className: "plain", onclick: () => ($("preview").replaceChildren(), $("add-what").focus()) }, "Cancel");
  $("preview").replaceChildren(
    el(
      "div",
      { className: "preview" },
      el("h3", {}, found.id),
      el("p", { className: "quiet" }, [plan.repository, plan.quantization, found.path].filter(Boolean).join(" · ")),
      plan.reason ? el("p", {}, plan.reason) : null,
      plan.table.length ? variants(plan.table) : el("ul", { className: "file-list" }, plan.files.map((file) => el("li", {}, `${file.name}${file.size ? `, ${bytes(file.size)}` : ""}`))),
      found.exists ? told({ message: "A model of that name is there already." }, { warn: true }) : el("p", { className: "buttons" }, take, forget),
    ),
  );
}

export function setUp() {
  $("search-form").addEventListener("submit", search);
  $("add-form").addEventListener("submit", preview);
  let known = "";
  subscribe(() => {
    const now = [...models.keys()].join("\n");
    if (now !== known) {
      known = now;
      drawOffers();
    }
  });
}
