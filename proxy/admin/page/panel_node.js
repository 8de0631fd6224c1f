// The panel of the node: its cache, its runtime and the notices at the top, and the sums in the footer.

import { ago, bytes, count, countOf } from "./format.js";
import { byId, make, setText } from "./dom.js";
import { evicted } from "./panel_evictions.js";

export const node = {
  state(s, clock) {
    showCache(s);
    showMirror(s.mirror, clock.now());
    showRuntimes(s.runtimes, clock.now());
    showBucket(s.shared);
    showTotals(s);
  },
};

function showCache(s) {
  byId("degraded").hidden = !s.degraded;
  setText("degraded", s.degraded ? `Content that is not cached is passed through and not kept: ${s.degraded}` : "");
  setText("size", bytes(s.bytes));
  byId("fullness").hidden = !s.maxSize;
  byId("fullness").value = s.maxSize ? s.bytes / s.maxSize : 0;
  setText("size-detail", `${s.maxSize ? `of ${bytes(s.maxSize)}` : "no limit"}, ${bytes(s.free)} free on disk`);
}

// A node whose runtime does not ask Larder looks healthy in every other figure.
function showMirror(mirror, now) {
  const faults = mirror?.faults ?? [];
  const notice = byId("unused");
  notice.hidden = faults.length === 0;
  notice.title = mirror ? `checked ${ago(Date.parse(mirror.at), now)}` : "";
  const fresh = make("div", {},
    make("strong", {}, "Installed, but not used"),
    ": the container runtime of this node does not pull its images through Larder.",
    make("ul", {}, ...faults.map((f) => make("li", {}, f.what, f.advice ? make("pre", {}, f.advice) : ""))),
  );
  // It is announced when it changes, so it stays the same element until then.
  if (!notice.firstElementChild?.isEqualNode(fresh)) notice.replaceChildren(fresh);
}

function showRuntimes(runtimes, now) {
  setText("runtimes", runtimes.length ? `Last asked: ${runtimes.map((r) => `${r.name} ${ago(Date.parse(r.last), now)}`).join(", ")}` : "No client has asked for content yet.");
}

function showBucket(b) {
  byId("bucket").hidden = !b;
  if (!b) return;
  const put = b.writes ? `, ${bytes(b.given)} put${b.queued ? `, ${count(b.queued)} wait` : ""}` : "";
  const wrong = b.wrong ? `, ${countOf(b.wrong, "object")} wrong` : "";
  const fails = b.reading || b.writing ? `; it fails: ${b.reading || b.writing}` : "";
  setText("bucket", `Bucket ${b.bucket}: ${bytes(b.taken)} taken${put}${wrong}${fails}`);
}

function showTotals(s) {
  const r = s.requests;
  const totals = byId("totals");
  Object.assign(totals.dataset, { ...r, served: s.served, fetched: s.fetched, evicted: evicted(s) });
  setText(totals, `Since the start: ${count(r.hit)} hits, ${count(r.miss)} misses, ${count(r.stale)} stale, ${count(r.bypass)} passed through, ` +
    `${count(r.failed)} failed; ${bytes(s.served)} served, ${bytes(s.fetched)} fetched; ${countOf(evicted(s), "eviction")}.`);
}
