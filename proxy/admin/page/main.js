// The page shows the daemon's events. Each event has the whole state of its subject.
//
// A panel is a file. It exports an object with a method for each event that it shows, which is called with the event's
// data and the clock, and again when time has passed.

import { span } from "./format.js";
import { byId, setText } from "./dom.js";
import { evictions } from "./panel_evictions.js";
import { fills } from "./panel_fills.js";
import { Images } from "./panel_images.js";
import { node } from "./panel_node.js";
import { peers } from "./panel_peers.js";
import { refused } from "./panel_refused.js";
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

const panels = [header, new Trends(clock), node, fills, peers, upstreams, refused, new Images(clock), evictions];
const lasting = ["about", "state", "peers", "images", "evictions"]; // events that are shown again when time has passed: ages change
const events = ["time", "history", "sample", ...lasting];
const latest = new Map(); // the last data of each lasting event

function show(event, data) {
  for (const panel of panels) panel[event]?.(data, clock);
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
  for (const event of events) {
    source.addEventListener(event, (e) => {
      const data = JSON.parse(e.data);
      if (lasting.includes(event)) latest.set(event, data);
      show(event, data);
    });
  }
}

setInterval(() => {
  for (const [event, data] of latest) show(event, data);
}, 5000);

follow();
