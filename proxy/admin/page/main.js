// The page shows the daemon's events. Each event has the whole state of its subject.
//
// A panel is a file. It exports an object with a method for each event that it shows, which is called with the event's
// data and the clock, and again when time has passed.

import { ago, span } from "./format.js";
import { byId, setText } from "./dom.js";
import { evictions } from "./panel_evictions.js";
import { fills } from "./panel_fills.js";
import { Images } from "./panel_images.js";
import { node } from "./panel_node.js";
import { peers } from "./panel_peers.js";
import { policy } from "./panel_policy.js";
import { recent } from "./panel_recent.js";
import { refused } from "./panel_refused.js";
import { settings } from "./panel_settings.js";
import { Trends } from "./panel_trends.js";
import { upstreams } from "./panel_upstreams.js";

// The daemon's clock. All ages are computed with it.
const clock = {
  off: 0,
  now: () => Date.now() + clock.off,
};

const header = {
  time(ms) {
    clock.off = ms - Date.now();
  },
  about({ name, version, started }) {
    setText("name", name);
    document.title = name ? `${name} · Larder` : "Larder";
    setText("version", `${version} · up ${span(clock.now() - Date.parse(started))}`);
  },
};

const panels = [header, new Trends(clock), node, fills, peers, upstreams, refused, policy, recent, new Images(clock), evictions, settings];
const lasting = ["about", "state", "peers", "recent", "images", "evictions", "settings"]; // shown again when time has passed: ages change
const events = ["time", "history", "sample", ...lasting];
const latest = new Map(); // the last data of each lasting event

function show(event, data) {
  for (const panel of panels) panel[event]?.(data, clock);
}

let lost = false; // whether the stream is broken
let heard; // when the last event came, by the daemon's clock

// showLive says whether the figures are those of now. Old ones are dimmed, with their age.
function showLive() {
  document.body.classList.toggle("lost", lost);
  byId("live").className = lost ? "lost" : "live";
  setText("live", !lost ? "live" : heard ? `no connection; figures of ${ago(heard, clock.now())}` : "no connection");
}

// follow opens the stream. If the stream breaks, the browser opens it again. If it is refused, it does not.
function follow() {
  const source = new EventSource("api/v1/events");
  source.onopen = () => {
    lost = false;
    showLive();
  };
  source.onerror = () => {
    lost = true;
    showLive();
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 10000);
  };
  for (const event of events) {
    source.addEventListener(event, (e) => {
      const data = JSON.parse(e.data);
      heard = clock.now();
      if (lasting.includes(event)) latest.set(event, data);
      show(event, data);
    });
  }
}

setInterval(() => {
  if (lost) showLive();
  for (const [event, data] of latest) show(event, data);
}, 5000);

follow();
