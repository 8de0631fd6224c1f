// The panel of upstreams.

import { ago, count, span } from "./format.js";
import { byId, cell, chip, long, make, rows, setText, time } from "./dom.js";

let configured = []; // the hosts and patterns of the configuration
let latest; // the state that was shown last

export const upstreams = {
  settings(all, clock) {
    configured = all.filter((s) => /^upstreams\[\d+\]\.host$/.test(s.key)).map((s) => s.value);
    if (latest) upstreams.state(latest, clock);
  },
  state(s, clock) {
    latest = s;
    const hosts = configured.filter((h) => !h.includes("*") && !s.upstreams.some((u) => u.host === h));
    showUpstreams([...s.upstreams, ...hosts.map((host) => ({ host, auth: "" }))], clock.now());
    const patterns = configured.filter((h) => h.includes("*"));
    byId("upstreams-patterns").hidden = patterns.length === 0;
    setText("upstreams-patterns", `Also served, once a client asks for one: ${patterns.join(", ")}`);
  },
};

function showUpstreams(upstreams, now) {
  const when = (t) => time(t, ago(Date.parse(t), now));
  rows("upstreams", upstreams, (u) => u.host, (u) => [
    cell("", "host", u.host, u.replicaOf ? make("div", { class: "quiet" }, `replica of ${u.replicaOf}`) : ""),
    cell("", "tight", ...upstreamState(u, now)),
    cell("by", "auth", authentication(u, now), u.tokenError ? make("div", { class: "error" }, tokenTrouble(u)) : ""),
    cell("answered", "tight", u.lastAnswer ? when(u.lastAnswer) : make("span", { class: "quiet" }, "never")),
    u.lastError ? cell("failed", "wide", make("div", {}, when(u.lastErrorAt), ":"), make("div", {}, long(u.lastError))) : cell("failed", "quiet", "never"),
  ]);
}

// tokenTrouble says why there is no newer token. The last error of the upstream may say the same beside it.
function tokenTrouble(u) {
  if (u.lastError?.includes(u.tokenError) || u.tokenError.includes(u.lastError || "\0")) return "no newer token";
  return make("div", {}, "no newer token: ", long(u.tokenError));
}

function upstreamState(u, now) {
  const chips = [];
  if (u.offline) return [chip("offline")];
  if (u.lastErrorAt && !(u.lastAnswer >= u.lastErrorAt)) chips.push(chip("failing", "bad"));
  else if (u.lastAnswer) chips.push(chip("answers", "good"));
  else chips.push(chip("not asked yet"));
  if (u.throttled) {
    const facts = [];
    if (u.rate) facts.push(`${u.rate.toFixed(1)}/s`);
    if (u.waiting) facts.push(`${count(u.waiting)} waiting`);
    if (u.pausedUntil && Date.parse(u.pausedUntil) > now) facts.push(`paused for ${span(Date.parse(u.pausedUntil) - now)}`);
    chips.push(chip(["throttled", ...facts].join(", "), "warn"));
  }
  if (u.pullsNotRecorded) chips.push(chip(`does not record pulls by ${u.pullsNotRecorded}`, "warn"));
  return chips;
}

function authentication(u, now) {
  const name = { ecr: "ECR token", bearer: "bearer token", basic: "user name and password", none: "none", "": "–" }[u.auth] ?? u.auth;
  const facts = [];
  if (u.tokenObtained) facts.push(`${span(now - Date.parse(u.tokenObtained))} old`);
  if (u.tokenExpires) {
    const left = Date.parse(u.tokenExpires) - now;
    facts.push(left > 0 ? `good for ${span(left)}` : "expired");
  }
  return [name, ...facts].join(", ");
}
