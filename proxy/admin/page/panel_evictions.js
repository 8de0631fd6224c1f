// The panel of evictions.

import { ago, bytes, count, digest } from "./format.js";
import { cell, chip, make, rows, setText, time } from "./dom.js";

export const evictions = {
  state: (s) => setText("evictions-count", evicted(s) ? count(evicted(s)) : ""),
  evictions: (all, clock) => showEvictions(all, clock.now()),
};

// evicted returns how many blobs have been evicted since the start.
export const evicted = (s) => Object.values(s.evictions ?? {}).reduce((sum, n) => sum + n, 0);

function showEvictions(all, now) {
  rows("evictions", all, (e) => `${e.at} ${e.digest}`, (e) => [
    cell("", "tight", time(e.at, ago(Date.parse(e.at), now))),
    cell("", "", make("span", { class: "mono", title: e.digest }, digest(e.digest)), e.partial ? chip("partial") : ""),
    cell("of", "", (e.repositories ?? []).join(", ") || "–"),
    cell("size", "number", bytes(e.bytes)),
    cell("", "", e.reason),
  ]);
}
