// A chart of series over time. It is drawn as SVG, in the size of its place.

import { clock } from "./format.js";

const space = "http://www.w3.org/2000/svg";
const margin = { top: 8, right: 4, bottom: 20, left: 60 };

function draw(parent, tag, attributes, text) {
  const e = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}

// steps returns round values from 0 to most or a little more, with at most four steps of 1 or more; of nothing only 0.
function steps(most, base) {
  if (most <= 0) return [0];
  most = Math.max(most, base === 2 ? 4 : 1);
  const size = base ** Math.floor(Math.log(most) / Math.log(base));
  const factors = base === 2 ? [0.25, 0.5, 1, 2] : [0.1, 0.2, 0.5, 1, 2, 5];
  const step = factors.map((f) => f * size).find((s) => most / s <= 4) ?? most;
  const all = [0];
  while (all.at(-1) < most) all.push(all.at(-1) + step);
  return all;
}

export class Chart {
  // names are the names of the series, and their classes in the style sheet. format formats a value, tick a value of the
  // axis. top is the fixed highest value, if there is one. base is the base of round values.
  constructor(place, { title, names, format, tick = format, top, base = 10 }) {
    Object.assign(this, { place, title, names, format, tick, top, base, points: [] });
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    place.addEventListener("pointermove", (e) => this.point(e));
    place.addEventListener("pointerleave", () => this.point());
    new ResizeObserver(() => this.render()).observe(place);
  }

  // show draws points between two times. A point is {at, values}, with one value for each series, or null.
  show(points, from, to, summary) {
    Object.assign(this, { points, from, to, summary });
    this.render();
  }

  x(at) {
    return margin.left + ((at - this.from) / (this.to - this.from)) * (this.width - margin.left - margin.right);
  }

  y(value) {
    return this.height - margin.bottom - (value / this.most) * (this.height - margin.top - margin.bottom);
  }

  render() {
    this.width = this.place.clientWidth;
    this.height = this.place.clientHeight;
    if (!this.from || this.width < margin.left + margin.right) return;
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${this.title}: ${this.summary}`);
    this.grid(svg);
    this.names.forEach((name, i) => this.series(svg, name, i));
    this.cursor = draw(svg, "line", { class: "cursor", y1: margin.top, y2: this.height - margin.bottom, visibility: "hidden" });
    this.place.replaceChildren(svg, this.tip);
    if (this.pointer !== undefined) this.showTip();
  }

  grid(svg) {
    const values = this.points.flatMap((p) => p.values).filter((v) => v !== null);
    const ticks = this.top ? [0, this.top / 2, this.top] : steps(Math.max(...values, 0), this.base);
    this.most = ticks.at(-1) || 1;
    for (const value of ticks) {
      const y = Math.round(this.y(value)) + 0.5;
      draw(svg, "line", { class: "grid", x1: margin.left, x2: this.width - margin.right, y1: y, y2: y });
      draw(svg, "text", { x: margin.left - 8, y: y + 4, "text-anchor": "end" }, this.tick(value));
    }
    const wanted = (this.to - this.from) / Math.max(Math.floor(this.width / 110), 1);
    const step = [1, 2, 5, 10, 15, 30, 60, 120, 240, 360].map((min) => min * 60000).find((s) => s >= wanted) ?? 720 * 60000;
    const zone = new Date(this.to).getTimezoneOffset() * 60000;
    for (let at = Math.ceil((this.from - zone) / step) * step + zone; at <= this.to; at += step) {
      const x = this.x(at);
      const anchor = x > this.width - 24 ? "end" : x < margin.left + 8 ? "start" : "middle";
      draw(svg, "text", { x, y: this.height - 4, "text-anchor": anchor }, clock(at));
    }
  }

  // series draws each stretch without gaps as a line, with the area below it.
  series(svg, name, i) {
    let stretch = [];
    const end = () => {
      if (stretch.length === 1) {
        draw(svg, "circle", { class: `${name} dot`, cx: stretch[0][0].toFixed(1), cy: stretch[0][1].toFixed(1), r: 2.5 });
      } else if (stretch.length > 1) {
        const path = stretch.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L");
        const floor = this.y(0);
        draw(svg, "path", { class: `${name} area`, d: `M${stretch[0][0].toFixed(1)},${floor}L${path}L${stretch.at(-1)[0].toFixed(1)},${floor}Z` });
        draw(svg, "path", { class: `${name} line`, d: `M${path}` });
      }
      stretch = [];
    };
    for (const p of this.points) {
      if (p.values[i] === null) end();
      else stretch.push([this.x(p.at), this.y(p.values[i])]);
    }
    end();
  }

  point(event) {
    this.pointer = event && event.clientX - this.place.getBoundingClientRect().left;
    this.showTip();
  }

  // showTip shows the values at the pointer.
  showTip() {
    const near = this.pointer === undefined ? undefined : this.points.reduce((best, p) =>
      best && Math.abs(this.x(best.at) - this.pointer) <= Math.abs(this.x(p.at) - this.pointer) ? best : p, undefined);
    this.tip.hidden = !near;
    this.cursor?.setAttribute("visibility", near ? "visible" : "hidden");
    if (!near) return;
    const x = this.x(near.at);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const values = near.values.map((v) => (v === null ? "nothing" : this.format(v)));
    this.tip.textContent = `${clock(near.at)}  ${values.join("  /  ")}`;
    const left = x + this.tip.offsetWidth + 12 > this.width ? x - this.tip.offsetWidth - 8 : x + 8;
    this.tip.style.left = `${Math.max(left, 0)}px`;
  }
}
