// The dialog with the detail of one image.

import { ago, bytes, countOf } from "./format.js";
import { byId, chip, copier, make, setText } from "./dom.js";

// open shows an image of the list. stays says why it stays in the cache, or when it goes.
export async function open(image, name, stays) {
  setText("image-title", name);
  byId("image-detail").replaceChildren(
    line("Digest", make("span", { class: "mono" }, image.digest), copier(image.digest, "the digest")),
    line("Pull by digest", make("span", { class: "mono" }, `${image.upstream}/${image.repository}@${image.digest}`),
      copier(`${image.upstream}/${image.repository}@${image.digest}`, "the name with the digest")),
    line("Stays or goes", stays),
    make("p", { id: "image-parts", class: "quiet", role: "status" }, "Reading what is cached…"),
  );
  if (!byId("image").open) byId("image").showModal();
  const parts = await read(image);
  if (byId("image-parts")) byId("image-parts").replaceWith(make("div", { id: "image-parts" }, ...parts));
}

const line = (term, ...what) => make("div", { class: "fact" }, make("h3", {}, term), make("div", {}, ...what));

async function read(image) {
  try {
    const resp = await fetch(`api/v1/image?image=${encodeURIComponent(`${image.upstream}/${image.repository}@${image.digest}`)}`);
    const body = await resp.json();
    return resp.ok ? [...body.manifests.map((m) => platform(m)), more(body.more, "manifest")] : [make("p", { class: "error" }, body.error)];
  } catch (e) {
    return [make("p", { class: "error" }, `What is cached cannot be read: ${e.message}`)];
  }
}

const more = (n, one) => (n ? make("p", { class: "quiet" }, `and ${countOf(n, `more ${one}`, `more ${one}s`)}`) : "");

function platform(m) {
  const missing = m.parts.filter((p) => !p.here);
  const whole = m.here && missing.length === 0 && !m.more;
  const size = m.parts.reduce((sum, p) => sum + p.size, 0);
  const lacks = missing.reduce((sum, p) => sum + p.size, 0);
  const state = !m.here ? chip("not cached") : whole ? chip("complete", "good") : chip(`${countOf(missing.length, "blob")} missing, ${bytes(lacks)}`, "warn");
  return make("details", { open: m.here && !whole ? "" : undefined },
    make("summary", {}, m.platform || "no platform", " ", state, m.here ? ` ${bytes(size)}` : ""),
    make("div", { class: "part" }, make("span", { class: "mono" }, m.digest), copier(m.digest, "the manifest's digest")),
    make("ul", { class: "parts" }, ...m.parts.map(part)), more(m.more, "blob"));
}

const part = (p, i) => make("li", { class: "part" }, make("span", { class: "mono" }, p.digest), copier(p.digest, `the digest of ${p.config ? "the configuration" : `layer ${i}`}`),
  make("span", {}, `${p.config ? "configuration" : "layer"}, ${bytes(p.size)} `, p.here ? "" : chip("missing", "warn")));

// why says why an image stays, or when it goes. before counts the images that were used less recently.
export function why(i, before, now) {
  const used = i.used ? `It was last used ${ago(Date.parse(i.used), now)}.` : "It has not been used.";
  if (i.pinned) return "It is pinned: it is never evicted.";
  if (i.expired) return `Lifecycle rule ${i.expired.rule} (${i.expired.source}) has expired it: expired images are evicted first.`;
  const order = before === 0 ? "It is the first to be evicted when space is needed" : `When space is needed, ${countOf(before, "image")} used less recently ${before === 1 ? "goes" : "go"} before it`;
  return `${used} ${order}, and layers that others share stay.`;
}

byId("image").addEventListener("click", (e) => {
  if (e.target === byId("image")) byId("image").close();
});
byId("image-close").addEventListener("click", () => byId("image").close());
