// What a person should mend, with its place.

import { call } from "./api.js";
import { $, arrange, el, moment, note, setText } from "./dom.js";
import { act } from "./models.js";
import { facts, problems, subscribe } from "./store.js";

const rows = new Map();

function row(problem) {
  const where = [problem.path, problem.line, problem.column].filter((part) => part !== null).join(":");
  const isError = problem.severity === "error";
  return el(
    "li",
    { className: "row" },
    el("h3", { className: "place-of" }, el("code", {}, where), el("span", { className: isError ? "severity bad" : "severity" }, isError ? "Error" : "Warning")),
    el("p", { className: "message-text" }, problem.message),
    problem.hint ? el("p", { className: "quiet" }, problem.hint) : null,
    el("p", { className: "quiet" }, `${problem.code}, since ${moment(problem.since)}`),
  );
}

function draw() {
  for (const key of rows.keys()) if (!problems.has(key)) rows.delete(key);
  const sorted = [...problems].sort(([, one], [, other]) => (one.severity === "error" ? 0 : 1) - (other.severity === "error" ? 0 : 1) || (one.path < other.path ? -1 : 1));
  arrange(
    $("problems"),
    sorted.map(([key, problem]) => {
      if (!rows.has(key)) rows.set(key, row(problem));
      return rows.get(key);
    }),
  );
  $("no-problems").hidden = facts.connection === "connecting" || problems.size > 0;
  const count = $("problem-count");
  count.hidden = problems.size === 0;
  setText(count, String(problems.size));
  count.classList.toggle("bad", [...problems.values()].some(({ severity }) => severity === "error"));
}

export function setUp() {
  subscribe(draw);
  $("rescan").addEventListener("click", async () => {
    const done = await act("Cannot scan", () => call("POST", "/v1/rescan"));
    if (done) note(`Everything was scanned, ${done.changed ?? 0} changed.`);
  });
}
