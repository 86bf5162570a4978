// The page: which view is shown, the token, the connection; everything else is the views' own.

import { keepToken, hasToken, onUnauthorized } from "./api.js";
import * as catalogue from "./catalogue.js";
import * as chat from "./chat.js";
import { $, setText } from "./dom.js";
import * as models from "./models.js";
import * as problems from "./problems.js";
import { facts, live, look, subscribe } from "./store.js";
import * as uploads from "./uploads.js";

const VIEWS = ["models", "chat", "catalogue", "problems"];
const WORDS = { connecting: "Connecting", live: "Live", lost: "Connection lost, trying again" };
const LOOK_MS = 3000;

let view = "";
let wanted = "";

function show() {
  const [name, rest = ""] = location.hash.slice(1).split("/", 2);
  const next = VIEWS.includes(name) ? name : "models";
  const first = view === "";
  const changed = next !== view;
  view = next;
  for (const other of VIEWS) $(`view-${other}`).hidden = other !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = $(`${view}-title`);
  document.title = `${title.textContent} · jand`;
  if (view === "catalogue") catalogue.load();
  if (view === "chat" && rest) {
    wanted = decodeURIComponent(rest);
    chat.choose(wanted);
  }
  if (changed && !first) {
    scrollTo({ top: 0 });
    if (view === "chat" && !$("chat-text").disabled) $("chat-text").focus();
    else title.focus({ preventScroll: true });
  }
}

function drawConnection() {
  $("connection").dataset.state = facts.connection;
  setText($("connection-text"), WORDS[facts.connection]);
  if (wanted && facts.connection === "live") {
    chat.choose(wanted);
    wanted = "";
  }
}

let asking = null;

/** Show the dialog until a token was typed; all that wait for one wait for the same. */
function askForToken() {
  asking ??= new Promise((resolve) => {
    setText($("token-error"), hasToken() ? "That is not the daemon’s token." : "");
    $("token").value = "";
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      keepToken($("token").value.trim());
      $("token-dialog").close();
      asking = null;
      resolve();
    };
    $("token-dialog").oncancel = (event) => event.preventDefault();
    $("token-dialog").showModal();
    $("token").focus();
  });
  return asking;
}

async function keepLooking() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    if (document.visibilityState === "visible" && facts.connection === "live") await look();
  }
}

onUnauthorized(askForToken);
for (const part of [models, chat, catalogue, problems, uploads]) part.setUp();
subscribe(drawConnection);
addEventListener("hashchange", show);
show();
live();
keepLooking();
