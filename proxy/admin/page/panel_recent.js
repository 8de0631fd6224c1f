// The panel of the last requests, and of those that failed.

import { ago, bytes } from "./format.js";
import { byId, cell, chip, long, make, rows, setText, time } from "./dom.js";

let latest = { requests: [], failures: [] };
let now = 0;

export const recent = {
  recent(all, clock) {
    latest = all;
    now = clock.now();
    render();
  },
};

function render() {
  const failed = byId("recent-failed").checked;
  setText("recent-empty", failed ? "No request has failed." : "No client has asked for content yet.");
  rows("recent", failed ? latest.failures : latest.requests, (r) => `${r.at} ${r.client} ${r.method} ${r.reference}`, (r) => [
    cell("", "tight", time(r.at, ago(Date.parse(r.at), now))),
    cell("", "wide", ...asked(r)),
    cell("by", "", `${r.agent || "a client"} at ${r.client}`),
    cell("", "tight", ...answer(r)),
    cell("took", "number", took(r.took)),
  ]);
}

function asked(r) {
  const name = r.upstream ? `${r.upstream}/${r.repository}` : r.repository;
  const reference = !r.reference ? "" : r.reference.includes(":") ? `@${r.reference.slice(0, 19)}…` : `:${r.reference}`;
  const line = make("div", { title: `${name} ${r.reference}` }, `${r.method} ${name}`, make("span", { class: "quiet" }, reference));
  return r.error ? [line, make("div", { class: "error" }, long(r.error))] : [line];
}

function answer(r) {
  if (r.error) return [chip(r.status ? `${r.status}` : "no answer", "bad")];
  return [chip(r.cache.toLowerCase(), r.cache === "HIT" ? "good" : ""), ` ${bytes(r.bytes)}`];
}

function took(ns) {
  const ms = ns / 1e6;
  return ms < 1 ? "< 1 ms" : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

byId("recent-failed").addEventListener("change", render);
