// The panel of the other nodes: who gave what to whom, and which nodes are not asked.

import { bytes, count, countOf, percent, span } from "./format.js";
import { byId, cell, chip, make, rows, setText } from "./dom.js";

export const peers = {
  peers(p, clock) {
    byId("peers-section").hidden = !p;
    if (p) show(p, clock.now());
  },
};

function show(p, now) {
  setText("peers-count", `${countOf(p.nodes - 1, "other")}`);
  setText("peers-self", p.nodes > 1 ? "" : "This node knows no other one, and asks the registries itself.");
  sums(p);
  groups("peers-zones", p.zones.filter((z) => z.name || z.others || p.zones.length > 1), (z) => z.name || "no zone", "zones", p.zone);
  groups("peers-versions", p.versions, (v) => v.name || "unknown", "versions");
  byId("peers-versions").className = p.versions.length > 1 ? "chips differ" : "chips";
  const most = Math.max(1, ...p.top.map((n) => Math.max(n.given, n.taken)));
  rows("peers", p.top, (n) => n.address, (n) => [
    cell("", "host", n.address),
    cell("zone", "tight", n.zone || "–", n.zone !== p.zone ? " " : "", n.zone !== p.zone ? chip("other zone") : ""),
    cell("version", "tight", n.version || "–"),
    cell("taken from it", "flow", ...flow("taken", n.taken, most, `Taken from ${n.address}`)),
    cell("given to it", "flow", ...flow("given", n.given, most, `Given to ${n.address}`)),
    cell("", "wide", ...state(n, p.avoided, now)),
  ]);
  const gone = p.avoided.filter((a) => !p.top.some((n) => n.address === a.address));
  setText("peers-more", [
    p.more ? `and ${countOf(p.more, "other node")} with less` : "",
    ...gone.map((a) => `${a.address} is avoided${whole(a)}, ${left(a, now)}: ${a.why}`),
  ].filter((s) => s).join("; "));
}

function sums(p) {
  setText("peers-taken", bytes(p.taken));
  setText("peers-given", bytes(p.given));
  const all = p.taken + p.given;
  byId("peers-balance").hidden = all === 0;
  byId("peers-balance").value = all ? p.taken / all : 0;
  setText("peers-share", all ? `${percent(p.taken, all)} of what moved came here` : "nothing has moved yet");
}

// groups shows how many nodes there are of each zone, or version.
function groups(id, all, name, kind, own) {
  const fresh = all.map((g) => {
    const moved = g.taken + g.given > 0 ? `${bytes(g.taken)} taken, ${bytes(g.given)} given` : undefined;
    const text = `${g.others ? `${count(g.others)} more ${kind}` : name(g)} · ${count(g.nodes)}`;
    return chip(text, own !== undefined && g.name === own && !g.others ? "good" : "", moved);
  });
  const list = byId(id);
  if (list.children.length === fresh.length && fresh.every((e, i) => list.children[i].isEqualNode(e))) return;
  list.replaceChildren(...fresh);
}

function flow(kind, n, most, label) {
  if (n === 0) return [make("span", { class: "quiet" }, "–")];
  return [make("span", {}, bytes(n)), make("meter", { class: kind, min: 0, max: most, value: n, "aria-label": label })];
}

function state(n, avoided, now) {
  const chips = [];
  const why = avoided.find((a) => a.address === n.address);
  if (n.draining) chips.push(chip("about to stop", "warn"));
  if (why) chips.push(chip(why.lied ? "sent wrong content" : "avoided", why.lied ? "bad" : "warn"), make("span", { class: "why" }, `${whole(why)} ${left(why, now)}: ${why.why}`));
  else if (n.avoided) chips.push(chip("avoided", "warn"));
  else if (!n.draining) chips.push(chip("asked", "good"));
  return chips;
}

const whole = (a) => (a.blobs ? ` for ${countOf(a.blobs, "blob")}` : "");

const left = (a, now) => `for ${span(Date.parse(a.until) - now)} more`;
