// The panel of what is being fetched.

import { bytes, count, countOf, digest, percent, span, speed } from "./format.js";
import { cell, make, rows, setText } from "./dom.js";

const speeds = new Map(); // of the fills, by digest

export const fills = { state: (s, clock) => showFills(s.fillsRunning, clock.now()) };

function showFills(fills, now) {
  setText("fills-count", fills.length ? count(fills.length) : "");
  for (const d of speeds.keys()) if (!fills.some((f) => f.digest === d)) speeds.delete(d);
  for (const f of fills) {
    const was = speeds.get(f.digest);
    const momentary = was && now > was.at ? ((f.have - was.have) * 1000) / (now - was.at) : 0;
    speeds.set(f.digest, { have: f.have, at: now, rate: was ? 0.6 * was.rate + 0.4 * momentary : 0 });
  }
  rows("fills", fills, (f) => f.digest, (f) => [
    cell("", "", make("span", { class: "mono", title: f.digest }, digest(f.digest))),
    cell("for", "", f.repositories.join(", ") || "–"),
    cell("", "wide", ...progress(f)),
    cell("at", "number", speed(speeds.get(f.digest).rate)),
    cell("for", "", waitingClients(f, now)),
  ]);
}

function progress(f) {
  const bar = make("progress", { "aria-label": `Progress of ${digest(f.digest)}`, max: f.size || 1, value: f.size ? f.have : undefined });
  const text = f.size ? `${bytes(f.have)} of ${bytes(f.size)}, ${percent(f.have, f.size)}` : "its size is not known yet";
  return [bar, make("span", { class: "quiet" }, text)];
}

function waitingClients(f, now) {
  if (f.waiting === 0) return "none";
  const named = f.clients.map((c) => `${c.agent || "a client"} at ${c.address} for ${span(now - Date.parse(c.since))}`);
  const more = f.waiting - named.length;
  return named.join(", ") + (more > 0 ? ` and ${countOf(more, "other")}` : "");
}
