// The panel of upstreams.

import { ago, count, span } from "./format.js";
import { cell, chip, make, rows } from "./dom.js";

export const upstreams = { state: (s, clock) => showUpstreams(s.upstreams, clock.now()) };

function showUpstreams(upstreams, now) {
  const when = (t) => make("time", { datetime: t, title: t }, ago(Date.parse(t), now));
  rows("upstreams", upstreams, (u) => u.host, (u) => [
    cell("", "host", u.host, u.replicaOf ? make("div", { class: "quiet" }, `replica of ${u.replicaOf}`) : ""),
    cell("", "tight", ...upstreamState(u, now)),
    cell("by", "auth", authentication(u, now), u.tokenError ? make("div", { class: "error" }, `no newer token: ${u.tokenError}`) : ""),
    cell("answered", "tight", u.lastAnswer ? when(u.lastAnswer) : make("span", { class: "quiet" }, "never")),
    u.lastError ? cell("failed", "wide", when(u.lastErrorAt), `: ${u.lastError}`) : cell("failed", "quiet", "never"),
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
