// The page shows the daemon's events. Each event has the whole state of its subject.

import { ago, bytes, count, digest, percent, countOf, span, speed } from "./format.js";
import { byId, cell, chip, make, rows, setText } from "./dom.js";
import { Images } from "./images.js";
import { Trends } from "./trends.js";

// The daemon's clock. All ages are computed with it.
const clock = {
  off: 0,
  now: () => Date.now() + clock.off,
};

const trends = new Trends(clock);
const images = new Images(clock);
const latest = {}; // the last event of each name
const speeds = new Map(); // of the fills, by digest

const on = {
  time(ms) {
    clock.off = ms - Date.now();
  },
  about({ name, version, started }) {
    setText("name", name);
    document.title = name ? `${name} · Larder` : "Larder";
    setText("version", `${version} · up ${span(clock.now() - Date.parse(started))}`);
  },
  history: (h) => trends.history(h),
  sample: (s) => trends.sample(s),
  state(s) {
    trends.state(s);
    showCache(s);
    showFills(s.fillsRunning);
    showUpstreams(s.upstreams);
    showRefused(s.refused);
    showMirror(s.mirror);
    showRuntimes(s.runtimes);
    showTotals(s);
  },
  images: (list) => images.show(list),
  evictions: (all) => showEvictions(all),
};

function showCache(s) {
  byId("degraded").hidden = !s.degraded;
  setText("degraded", s.degraded ? `Content that is not cached is passed through and not kept: ${s.degraded}` : "");
  setText("size", bytes(s.bytes));
  byId("fullness").hidden = !s.maxSize;
  byId("fullness").value = s.maxSize ? s.bytes / s.maxSize : 0;
  setText("size-detail", `${s.maxSize ? `of ${bytes(s.maxSize)}` : "no limit"}, ${bytes(s.free)} free on disk`);
}

function showFills(fills) {
  setText("fills-count", fills.length ? count(fills.length) : "");
  const now = clock.now();
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

function showUpstreams(upstreams) {
  const now = clock.now();
  const when = (t) => make("time", { datetime: t, title: t }, ago(Date.parse(t), now));
  rows("upstreams", upstreams, (u) => u.host, (u) => [
    cell("", "host", u.host, u.replicaOf ? make("div", { class: "quiet" }, `replica of ${u.replicaOf}`) : ""),
    cell("", "tight", ...upstreamState(u, now)),
    cell("by", "auth", authentication(u, now), u.tokenError ? make("div", { class: "error" }, `no newer token: ${u.tokenError}`) : ""),
    cell("answered", "tight", u.lastAnswer ? when(u.lastAnswer) : make("span", { class: "quiet" }, "never")),
    u.lastError ? cell("failed", "wide", when(u.lastErrorAt), `: ${u.lastError}`) : cell("failed", "quiet", "never"),
  ]);
}

// A node whose runtime does not ask Larder looks healthy in every other figure.
function showMirror(mirror) {
  const faults = mirror?.faults ?? [];
  const notice = byId("unused");
  notice.hidden = faults.length === 0;
  notice.title = mirror ? `checked ${ago(Date.parse(mirror.at), clock.now())}` : "";
  const fresh = make("div", {},
    make("strong", {}, "Installed, but not used"),
    ": the container runtime of this node does not pull its images through Larder.",
    make("ul", {}, ...faults.map((f) => make("li", {}, f.what, f.advice ? make("pre", {}, f.advice) : ""))),
  );
  // It is announced when it changes, so it stays the same element until then.
  if (!notice.firstElementChild?.isEqualNode(fresh)) notice.replaceChildren(fresh);
}

function showRuntimes(runtimes) {
  const now = clock.now();
  setText("runtimes", runtimes.length ? `Last asked: ${runtimes.map((r) => `${r.name} ${ago(Date.parse(r.last), now)}`).join(", ")}` : "No client has asked for content yet.");
}

// What is refused, clients pull past Larder.
function showRefused(refused) {
  const now = clock.now();
  byId("refused-section").hidden = refused.length === 0;
  rows("refused", refused, (r) => `${r.registry} ${r.reason}`, (r) => [
    cell("", "host", r.registry || "none named"),
    cell("requests", "number", count(r.requests)),
    cell("last", "tight", make("time", { datetime: r.last, title: r.last }, ago(Date.parse(r.last), now))),
    cell("", "wide", r.text),
  ]);
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
  const name = { ecr: "ECR token", bearer: "bearer token", basic: "user name and password", none: "none" }[u.auth] ?? u.auth;
  const facts = [];
  if (u.tokenObtained) facts.push(`${span(now - Date.parse(u.tokenObtained))} old`);
  if (u.tokenExpires) {
    const left = Date.parse(u.tokenExpires) - now;
    facts.push(left > 0 ? `good for ${span(left)}` : "expired");
  }
  return [name, ...facts].join(", ");
}

function showEvictions(all) {
  const now = clock.now();
  rows("evictions", all, (e) => `${e.at} ${e.digest}`, (e) => [
    cell("", "tight", make("time", { datetime: e.at, title: e.at }, ago(Date.parse(e.at), now))),
    cell("", "", make("span", { class: "mono", title: e.digest }, digest(e.digest)), e.partial ? chip("partial") : ""),
    cell("of", "", (e.repositories ?? []).join(", ") || "–"),
    cell("size", "number", bytes(e.bytes)),
    cell("", "", e.reason),
  ]);
}

function showTotals(s) {
  const r = s.requests;
  const evictions = Object.values(s.evictions ?? {}).reduce((sum, n) => sum + n, 0);
  setText("evictions-count", evictions ? count(evictions) : "");
  const totals = byId("totals");
  Object.assign(totals.dataset, { ...r, served: s.served, fetched: s.fetched, evicted: evictions });
  setText(totals, `Since the start: ${count(r.hit)} hits, ${count(r.miss)} misses, ${count(r.stale)} stale, ${count(r.bypass)} passed through, ` +
    `${count(r.failed)} failed; ${bytes(s.served)} served, ${bytes(s.fetched)} fetched; ${countOf(evictions, "eviction")}.`);
}

// follow opens the stream. If the stream breaks, the browser opens it again. If it is refused, it does not.
function follow() {
  const source = new EventSource("api/v1/events");
  const live = (text, kind) => {
    setText("live", text);
    byId("live").className = kind;
  };
  source.onopen = () => live("live", "live");
  source.onerror = () => {
    live("no connection", "lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 10000);
  };
  for (const [event, show] of Object.entries(on)) {
    source.addEventListener(event, (e) => {
      latest[event] = JSON.parse(e.data);
      show(latest[event]);
    });
  }
}

// Ages change without events.
setInterval(() => {
  for (const event of ["about", "state", "evictions"]) if (latest[event]) on[event](latest[event]);
  images.render();
}, 5000);

follow();
