// What the policy says about images: its rules, the images that they do not allow, and the verdict of an image.

import { ago, count, digest } from "./format.js";
import { byId, cell, chip, make, rows } from "./dom.js";

const names = { allowed: "allowed", refused: "refused", unknown: "undecided" };

export const policy = {
  state({ policy }, clock) {
    byId("policy-section").hidden = !policy;
    byId("images").classList.toggle("judged", !!policy);
    if (!policy) return;
    rows("policy", policy.rules, (r) => `${r.rule} ${r.mode}`, (r) => [
      cell("", "wide", r.rule),
      cell("", "tight", mode(r.mode)),
      cell("allowed", "number", count(r.allowed)),
      cell(r.mode === "warn" ? "would be refused" : "refused", "number", count(r.refused)),
      cell("undecided", "number", count(r.unknown)),
      cell("images", "number", count(r.denied)),
    ]);
    byId("denied").hidden = policy.denied.length === 0;
    rows("denied", policy.denied, (d) => `${d.upstream}/${d.repository}@${d.digest}`, (d) => [
      cell("", "", make("span", { title: d.digest }, `${d.upstream}/${d.repository}`, reference(d))),
      cell("", "tight", verdictChip(d)),
      cell("requests", "number", count(d.requests)),
      cell("last", "tight", make("time", { datetime: d.last, title: d.last }, ago(Date.parse(d.last), clock.now()))),
      cell("", "wide", (d.conditions ?? []).filter((c) => c.result === d.result).map((c) => `${c.condition}: ${c.reason}`).join("; ")),
    ]);
  },
};

const reference = (d) => d.reference.includes(":") ? make("span", { class: "mono quiet" }, `@${digest(d.digest)}`) : make("span", { class: "tag" }, `:${d.reference}`);

const mode = (m) => chip(m, "", m === "warn" ? "Images that it does not allow are served all the same." : "Images that it does not allow are refused.");

// verdictChip returns the verdict of an image. In mode warn it says what enforcing would come to.
export function verdictChip({ rule, mode, result, exempt, why }) {
  const title = [`By the rule ${rule} (${mode}).`, why].filter(Boolean).join(" ");
  if (exempt) return chip("exempt", "", title);
  if (result === "allowed") return chip("allowed", "good", title);
  return mode === "warn" ? chip(result === "refused" ? "would be refused" : "undecided, served", "warn", title) : chip(names[result], "bad", title);
}
