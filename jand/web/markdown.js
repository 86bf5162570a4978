// What a model says, as elements. Nothing of it becomes markup: text nodes and a fixed set of elements without attributes, but for links of two schemes.

import { el } from "./dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;
const TABLE_LINE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 8;

const INLINE = new RegExp(
  [
    "(?<ticks>`+)(?<code>[\\s\\S]{0,2000}?[^`])\\k<ticks>(?!`)",
    "\\*\\*(?=\\S)(?<strong>[\\s\\S]{0,2000}?\\S)\\*\\*(?!\\*)",
    "__(?=\\S)(?<strong2>[\\s\\S]{0,2000}?\\S)__(?![\\w_])",
    "\\*(?=[^\\s*])(?<em>[^*]{0,2000}?[^\\s*])\\*(?!\\*)",
    "(?<![\\w_])_(?=[^\\s_])(?<em2>[^_]{0,2000}?[^\\s_])_(?![\\w_])",
    "~~(?=\\S)(?<del>[\\s\\S]{0,2000}?\\S)~~",
    "\\[(?<label>[^\\[\\]]+)\\]\\((?<href>[^\\s()]+)\\)",
    "(?<bare>https?://[^\\s<>()\\[\\]\"']*[^\\s<>()\\[\\]\"'.,;:!?])",
    "\\\\(?<escaped>[\\\\`*_{}\\[\\]()#+.!~|>-])",
    "(?<newline>(?: {2,}|\\\\)?\\n)",
  ].join("|"),
  "u",
);

/** Return a fragment for `text`. What is not finished yet, as while it streams, is shown as far as it goes. */
export function render(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0));
  return fragment;
}

function blocks(lines, depth) {
  const made = [];
  let at = 0;
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) made.push(el("p", {}, inline(paragraph.join("\n"), 0)));
    paragraph = [];
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    if (fence) {
      flush();
      const end = lines.findIndex((other, index) => index > at && other.trim().startsWith(fence[1]) && /^[`~]+$/.test(other.trim()));
      const last = end < 0 ? lines.length : end;
      made.push(codeBlock(lines.slice(at + 1, last).join("\n"), fence[2]));
      at = last + 1;
    } else if (heading) {
      flush();
      // The page has headings of its own above: those of an answer stand below them.
      made.push(el(`h${Math.min(5, heading[1].length + 2)}`, {}, inline(heading[2], 0)));
      at += 1;
    } else if (RULE.test(line)) {
      flush();
      made.push(el("hr"));
      at += 1;
    } else if (QUOTE.test(line) && depth < DEEPEST) {
      flush();
      const quoted = [];
      while (at < lines.length && QUOTE.test(lines[at])) quoted.push(QUOTE.exec(lines[at++])[1]);
      made.push(el("blockquote", {}, blocks(quoted, depth + 1)));
    } else if (ITEM.test(line) && depth < DEEPEST) {
      flush();
      const [list, next] = listBlock(lines, at, depth);
      made.push(list);
      at = next;
    } else if (line.includes("|") && TABLE_LINE.test(lines[at + 1] ?? "") && lines[at + 1].includes("-") && lines[at + 1].includes("|")) {
      flush();
      const rows = [];
      let next = at + 2;
      while (next < lines.length && lines[next].includes("|")) rows.push(cells(lines[next++]));
      made.push(table(cells(line), rows));
      at = next;
    } else if (line.trim() === "") {
      flush();
      at += 1;
    } else {
      paragraph.push(line.trimStart());
      at += 1;
    }
  }
  flush();
  return made;
}

function listBlock(lines, start, depth) {
  const first = ITEM.exec(lines[start]);
  const indent = first[1].length;
  const ordered = first[3] !== undefined;
  const items = [];
  let at = start;
  while (at < lines.length) {
    const found = ITEM.exec(lines[at]);
    if (found && found[1].length <= indent + 1 && (found[3] !== undefined) === ordered && !RULE.test(lines[at])) {
      items.push([found[4]]);
      at += 1;
      continue;
    }
    const blank = lines[at].trim() === "";
    const following = blank ? lines[at + 1] : lines[at];
    const belongs = following !== undefined && following.trim() !== "" && /^\s*/.exec(following)[0].length > indent + 1;
    const next = blank && following !== undefined ? ITEM.exec(following) : null;
    if (belongs || (blank && next && next[1].length <= indent + 1 && (next[3] !== undefined) === ordered)) {
      items.at(-1).push(lines[at].slice(Math.min(indent + 2, /^\s*/.exec(lines[at])[0].length)));
      at += 1;
    } else if (!blank && !found && items.at(-1).at(-1).trim() !== "" && !HEADING.test(lines[at]) && !FENCE.test(lines[at])) {
      items.at(-1).push(lines[at]);
      at += 1;
    } else break;
  }
  const made = items.map((item) => {
    const inner = blocks(item, depth + 1);
    const tight = inner.length > 0 && inner[0].tagName === "P" && !item.some((line) => line.trim() === "");
    return el("li", {}, tight ? [...inner[0].childNodes, ...inner.slice(1)] : inner);
  });
  return [el(ordered ? "ol" : "ul", ordered ? { start: Number(first[3]) } : {}, made), at];
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

function table(head, rows) {
  const row = (name, values) => el("tr", {}, head.map((_, index) => el(name, {}, inline(values[index] ?? "", 0))));
  return el("table", {}, el("thead", {}, row("th", head)), el("tbody", {}, rows.map((values) => row("td", values))));
}

function codeBlock(text, language) {
  const copy = el("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text).then(
      () => (copy.textContent = "Copied"),
      () => (copy.textContent = "Not allowed"),
    );
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
  const label = language ? `Code, ${language}` : "Code";
  return el("div", { className: "code" }, el("pre", { tabIndex: 0, role: "region", ariaLabel: label }, el("code", {}, text)), copy);
}

/** Return nodes for a run of text. */
function inline(text, depth) {
  const made = [];
  let rest = text;
  while (rest) {
    const found = depth < DEEPEST ? INLINE.exec(rest) : null;
    if (!found) {
      made.push(rest);
      break;
    }
    if (found.index) made.push(rest.slice(0, found.index));
    made.push(element(found, depth));
    rest = rest.slice(found.index + found[0].length);
  }
  return made;
}

function element({ 0: whole, groups }, depth) {
  const within = (part) => inline(part, depth + 1);
  if (groups.code !== undefined) return el("code", {}, groups.code.replace(/^ (.*\S.*) $/s, "$1"));
  const strong = groups.strong ?? groups.strong2;
  if (strong !== undefined) return el("strong", {}, within(strong));
  const em = groups.em ?? groups.em2;
  if (em !== undefined) return el("em", {}, within(em));
  if (groups.del !== undefined) return el("del", {}, within(groups.del));
  if (groups.label !== undefined) return link(groups.href, within(groups.label)) ?? whole;
  if (groups.bare !== undefined) return link(groups.bare, groups.bare) ?? whole;
  if (groups.escaped !== undefined) return groups.escaped;
  return el("br");
}

/** Return a link to another page, null where `address` is none: a script's, a file's, one of this daemon's. */
function link(address, ...content) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer", title: url.href }, ...content);
}
