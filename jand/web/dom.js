// Elements from values, and values as people read them. Text goes in as text and nowhere as markup.

export const $ = (id) => document.getElementById(id);

/** Make an element. `properties` are set as properties where the element has them, else as attributes; children that are null or false are left out. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Set the text of `node` only where it differs, so that nothing is spoken or selected anew. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Bring the children of `parent` into the order of `wanted`, moving the others around the one that has the focus: what is moved loses it. */
export function arrange(parent, wanted) {
  const keep = new Set(wanted);
  for (const child of [...parent.children]) if (!keep.has(child)) child.remove();
  if (!wanted.length) return;
  const fixed = Math.max(0, wanted.findIndex((child) => child.contains(document.activeElement)));
  if (wanted[fixed].parentElement !== parent) parent.prepend(wanted[fixed]);
  for (let at = fixed - 1; at >= 0; at -= 1) if (wanted[at].nextElementSibling !== wanted[at + 1]) wanted[at + 1].before(wanted[at]);
  for (let at = fixed + 1; at < wanted.length; at += 1) if (wanted[at - 1].nextElementSibling !== wanted[at]) wanted[at - 1].after(wanted[at]);
}

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

/** Bytes as hubs write them, in powers of 1,000. */
export function bytes(count) {
  if (count === null || count === undefined) return "";
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A count of parameters: 7.24 B, 135 M. */
export function parameters(count) {
  if (count >= 1e9) return `${(count / 1e9).toFixed(count >= 1e10 ? 1 : 2)} B parameters`;
  if (count >= 1e6) return `${Math.round(count / 1e6)} M parameters`;
  return `${Math.round(count / 1e3)} k parameters`;
}

/** A Unix time in seconds: the time of today, else the day with it. */
export function moment(seconds) {
  const at = new Date(seconds * 1000);
  const today = at.toDateString() === new Date().toDateString();
  const style = today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(undefined, style).format(at);
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** Say something to those who cannot see it happen. */
export function announce(text) {
  $("announcements").textContent = text;
}

/** Show a note at the edge. One about what went wrong stays until it is closed. */
export function note(text, { stays = false } = {}) {
  const made = el("div", { className: "note", role: stays ? "alert" : "status" }, el("p", {}, text));
  made.append(el("button", { type: "button", onclick: () => made.remove(), ariaLabel: "Close this note" }, "Close"));
  $("notes").append(made);
  while ($("notes").children.length > 3) $("notes").firstChild.remove();
  if (!stays) setTimeout(() => made.remove(), 6000);
}

/** A message with its hint, in a box. */
export function told({ message, hint }, { warn = false } = {}) {
  return el("div", { className: warn ? "told warn" : "told" }, el("p", {}, message), hint ? el("p", { className: "hint" }, hint) : null);
}
