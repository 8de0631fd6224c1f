// The figures at the top and the charts: what was done over time.

import { bytes, count, percent, countOf, speed } from "./format.js";
import { byId, setText } from "./dom.js";
import { Chart } from "./chart.js";

const minute = 60000;
const ranges = {
  hour: { length: 60 * minute, words: "in the last hour" },
  day: { length: 24 * 60 * minute, words: "in the last day" },
};
const columns = 60; // of a chart

const asked = (s) => s.hit + s.stale + s.miss + s.bypass;
const cached = (s) => s.hit + s.stale;
const saved = (s) => Math.max(s.served - s.fetched - s.passed, 0);

// difference returns what was done between two samples, a and then b.
function difference(b, a) {
  const d = {};
  for (const key of ["hit", "miss", "stale", "bypass", "failed", "served", "fetched", "passed"]) d[key] = Math.max(b[key] - a[key], 0);
  return d;
}

function add(sum, d) {
  for (const key of Object.keys(d)) sum[key] = (sum[key] ?? 0) + d[key];
  return sum;
}

export class Trends {
  constructor(clock) {
    Object.assign(this, { clock, hour: [], day: [], range: "hour", seconds: [] });
    this.rate = new Chart(byId("chart-rate"), { title: "Hit rate", names: ["served"], format: (v) => `${Math.round(v)} %`, top: 100 });
    this.traffic = new Chart(byId("chart-traffic"), { title: "Traffic", names: ["served", "fetched"], format: speed, tick: (v) => speed(v).replace(/\.0+ /, " "), base: 2 });
    byId("range").addEventListener("change", (e) => {
      this.range = e.target.value;
      this.render();
    });
  }

  // history starts over: the daemon may be another one. Its history is shown once its first state has arrived.
  history({ hour, day }) {
    Object.assign(this, { hour: hour ?? [], day: day ?? [], seconds: [], latest: undefined });
  }

  // sample adds a sample, and drops those that the daemon has dropped.
  sample(s) {
    if (s.at <= (this.hour.at(-1)?.at ?? 0)) return;
    this.hour.push(s);
    if (s.at - (this.day.at(-1)?.at ?? 0) >= 300) this.day.push(s);
    if (this.hour.length > 361) this.hour.shift();
    if (this.day.length > 289) this.day.shift();
    this.render();
  }

  // state adds the sums of this second.
  state(state) {
    this.latest = { ...state.requests, served: state.served, fetched: state.fetched, passed: state.passed, at: this.clock.now() / 1000 };
    this.seconds.push(this.latest);
    if (this.seconds.length > 6) this.seconds.shift();
    this.render();
  }

  render() {
    if (!this.latest || this.hour.length === 0) return;
    const { length, words } = ranges[this.range];
    const to = this.clock.now();
    const begun = Math.min(this.hour[0].at, this.day[0].at) * 1000;
    const from = to - Math.min(length, Math.max(to - begun, 10 * minute)); // a young daemon does not get an hour of blank chart
    const samples = [...(this.range === "day" ? this.day : []), ...this.hour, this.latest].filter((s) => s.at * 1000 >= from).sort((a, b) => a.at - b.at);
    const points = Array.from({ length: columns }, (_, i) => ({ at: from + ((i + 0.5) * (to - from)) / columns }));
    const all = {};
    for (let i = 1; i < samples.length; i++) {
      const d = difference(samples[i], samples[i - 1]);
      const column = Math.min(Math.floor(((samples[i].at * 1000 - from) / (to - from)) * columns), columns - 1);
      points[column].sum = add(points[column].sum ?? {}, d);
      add(all, d);
    }
    this.figures(add(difference(this.latest, this.latest), all), words);
    this.charts(points, from, to, words);
  }

  figures(all, words) {
    setText("hit-rate", percent(cached(all), asked(all)));
    setText("hit-rate-detail", asked(all) === 0 ? `no requests ${words}` : `${count(cached(all))} of ${countOf(asked(all), "request")}`);
    setText("saved", bytes(saved(all)));
    setText("saved-detail", `${bytes(all.served)} served, ${bytes(all.fetched + all.passed)} fetched`);
    const a = this.seconds[0];
    const b = this.seconds.at(-1);
    const length = b.at - a.at;
    const d = difference(b, a);
    setText("fetching", length > 0 ? speed((d.fetched + d.passed) / length) : "–");
    setText("fetching-detail", length > 0 ? `fetched; ${speed(d.served / length)} served` : "");
  }

  charts(points, from, to, words) {
    const seconds = (to - from) / columns / 1000;
    const known = points.filter((p) => p.sum);
    const rate = points.map((p) => ({ at: p.at, values: [p.sum && asked(p.sum) > 0 ? (100 * cached(p.sum)) / asked(p.sum) : null] }));
    const all = known.reduce((sum, p) => add(sum, p.sum), { hit: 0, stale: 0, miss: 0, bypass: 0, served: 0, fetched: 0 });
    this.rate.show(rate, from, to, `${percent(cached(all), asked(all))} ${words}`);
    const traffic = points.map((p) => ({ at: p.at, values: p.sum ? [p.sum.served / seconds, (p.sum.fetched + p.sum.passed) / seconds] : [null, null] }));
    this.traffic.show(traffic, from, to, `${bytes(all.served)} served and ${bytes(all.fetched)} fetched ${words}`);
  }
}
