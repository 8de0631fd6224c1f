// The panel of registries that are refused.

import { ago, count } from "./format.js";
import { byId, cell, rows, time } from "./dom.js";

export const refused = { state: (s, clock) => showRefused(s.refused, clock.now()) };

// What is refused, clients pull past Larder.
function showRefused(refused, now) {
  byId("refused-section").hidden = refused.length === 0;
  rows("refused", refused, (r) => `${r.registry} ${r.reason}`, (r) => [
    cell("", "host", r.registry || "none named"),
    cell("requests", "number", count(r.requests)),
    cell("last", "tight", time(r.last, ago(Date.parse(r.last), now))),
    cell("", "wide", r.text),
  ]);
}
