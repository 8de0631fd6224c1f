// The table of images, which can be searched and sorted. A long one is cut.

import { ago, bytes, count, digest, countOf } from "./format.js";
import { byId, cell, chip, make, rows, setText, time } from "./dom.js";
import { open, why } from "./panel_image.js";
import { verdictChip } from "./panel_policy.js";

const first = 100; // the images that are shown before "Show all"

const orders = {
  name: (a, b) => (shortName(a) < shortName(b) ? -1 : 1),
  upstream: (a, b) => (a.upstream === b.upstream ? orders.name(a, b) : a.upstream < b.upstream ? -1 : 1),
  bytes: (a, b) => a.bytes - b.bytes,
  used: (a, b) => Date.parse(a.used ?? 0) - Date.parse(b.used ?? 0),
  pinned: (a, b) => a.pinned - b.pinned,
  expired: (a, b) => !!a.expired - !!b.expired,
  policy: (a, b) => concern(a) - concern(b),
};

// concern orders images by what the policy says: those that it does not allow are above those that it allows.
const concern = ({ policy }) => (policy ? 1 + ["allowed", "unknown", "refused"].indexOf(policy.result) : 0);

const shortName = (i) => `${i.repository}${i.tag ? `:${i.tag}` : `@${i.digest}`}`;
const fullName = (i) => `${i.upstream}/${shortName(i)}`;

export class Images {
  constructor(clock) {
    Object.assign(this, { clock, list: undefined, total: 0, order: "used", down: true, all: false });
    byId("search").addEventListener("input", () => this.render());
    byId("images").tHead.addEventListener("click", (e) => {
      const by = e.target.closest("button")?.dataset.sort;
      if (by) this.sort(by);
    });
    byId("images").tBodies[0].addEventListener("click", (e) => {
      const image = this.list.find((i) => fullName(i) === e.target.closest("button")?.dataset.image);
      if (image) open(image, fullName(image), why(image, this.before(image), this.clock.now()));
    });
    byId("images-more").addEventListener("click", () => {
      this.all = true;
      this.render();
    });
    document.addEventListener("keydown", (e) => {
      if (e.key !== "/" || e.target.closest("input, dialog") || e.ctrlKey || e.metaKey) return;
      e.preventDefault();
      byId("search").focus();
    });
  }

  // before counts the images that are evicted before another.
  before(image) {
    return this.list.filter((i) => i !== image && !i.pinned && (i.expired || Date.parse(i.used ?? 0) < Date.parse(image.used ?? 0))).length;
  }

  images({ images, total }) {
    Object.assign(this, { list: images, total });
    this.render();
  }

  // sort sorts by a column: names ascending, other columns descending. Sorting by the same column again reverses the order.
  sort(by) {
    this.down = by === this.order ? !this.down : by !== "name" && by !== "upstream";
    this.order = by;
    for (const button of byId("images").tHead.querySelectorAll("button")) {
      const state = button.dataset.sort !== by ? "none" : this.down ? "descending" : "ascending";
      button.closest("th").setAttribute("aria-sort", state);
    }
    this.render();
  }

  // found returns the images that contain every word of the search.
  found() {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = this.list.filter((i) => {
      const text = `${fullName(i)} ${i.digest} ${i.pinned ? "pinned" : ""} ${i.expired ? "expired" : ""} ${i.gone ? "gone upstream" : ""} ${i.policy ? verdictChip(i.policy).innerText : ""}`.toLowerCase();
      return words.every((w) => text.includes(w));
    });
    const way = this.down ? -1 : 1;
    return matches.sort((a, b) => way * orders[this.order](a, b) || orders.name(a, b));
  }

  render() {
    if (!this.list) return;
    const found = this.found();
    const searching = found.length < this.list.length;
    setText("images-count", searching ? `${count(found.length)} of ${count(this.total)}` : this.total ? count(this.total) : "");
    setText("images-empty", searching ? "No image matches." : "The cache is empty. Images that are pulled through Larder appear here.");
    const shown = this.all ? found : found.slice(0, first);
    rows("images", shown, fullName, (i) => this.cells(i));
    byId("images-more").hidden = shown.length === found.length;
    setText("images-more", `Show all ${countOf(found.length, "image")}`);
  }

  cells(i) {
    const reference = i.tag ? make("span", { class: "tag" }, `:${i.tag}`) : make("span", { class: "mono quiet" }, `@${digest(i.digest)}`);
    const name = [make("button", { type: "button", class: "name", title: i.digest, "data-image": fullName(i), "aria-haspopup": "dialog" }, i.repository, reference)];
    if (!i.complete) name.push(" ", chip("incomplete", "", "No platform of the image is completely cached."));
    if (i.gone) name.push(" ", chip("gone upstream", "warn", `The registry has not had this tag since ${new Date(i.gone).toLocaleString("en-GB")}. It is served as it was.`));
    const expired = i.expired && chip(`expired, rule ${i.expired.rule}`, "warn",
      `By the rule with priority ${i.expired.rule} (${i.expired.source}), since ${new Date(i.expired.since).toLocaleString("en-GB")}. Expired images are evicted first.`);
    return [
      cell("", "", ...name),
      cell("", "quiet host", i.upstream),
      cell("size", "number", bytes(i.bytes)),
      cell("used", "tight", i.used ? time(i.used, ago(Date.parse(i.used), this.clock.now())) : "–"),
      cell("", "tight", ...(i.pinned ? [chip("pinned", "good", "A pinned image is never evicted.")] : [])),
      cell("", "tight", ...(expired ? [expired] : [])),
      cell("", "tight verdict", ...(i.policy ? [verdictChip(i.policy)] : [])),
    ];
  }
}
