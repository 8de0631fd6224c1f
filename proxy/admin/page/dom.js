// Elements are made and updated here. All text is set as text, so that text of clients and upstreams is never markup.

export const byId = (id) => document.getElementById(id);

// make returns an element with attributes and children, which are elements or text.
export function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) e.setAttribute(name, value);
  e.append(...children.filter((c) => c !== undefined && c !== ""));
  return e;
}

// setText sets the text of an element, unless it has that text already.
export function setText(e, text) {
  if (typeof e === "string") e = byId(e);
  if (e.textContent !== text) e.textContent = text;
}

export const chip = (text, kind = "", title) => make("span", { class: `chip ${kind}`.trim(), title }, text);

// cell returns one cell of a row. A narrow screen shows the label before the content.
export const cell = (label, kind, ...children) =>
  make("td", { role: "cell", "data-label": label || undefined, class: kind || undefined }, ...children);

// rows makes the rows of a table those of a list: key returns the key of an item, cells its cells. A row that has not
// changed stays the same element, so that text in it stays selected.
export function rows(table, items, key, cells) {
  const body = byId(table).tBodies[0];
  const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let next = body.firstElementChild;
  for (const item of items) {
    const k = key(item);
    const fresh = make("tr", { role: "row", "data-key": k }, ...cells(item));
    let row = old.get(k);
    old.delete(k);
    if (!row) row = fresh;
    else morph(row, fresh);
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
  for (const row of old.values()) row.remove();
}

// morph makes an element that is shown equal to a fresh one, and touches only what differs: the focus, a selection, the
// movement of a bar and what a reader has unfolded stay.
export function morph(was, fresh) {
  if (was.nodeName !== fresh.nodeName || was.childNodes.length !== fresh.childNodes.length) {
    was.replaceWith(fresh);
    return;
  }
  if (was.nodeType === Node.TEXT_NODE) {
    if (was.data !== fresh.data) was.data = fresh.data;
    return;
  }
  for (const { name, value } of fresh.attributes) if (was.getAttribute(name) !== value) was.setAttribute(name, value);
  for (const { name } of [...was.attributes]) if (!fresh.hasAttribute(name) && name !== "open") was.removeAttribute(name);
  const children = [...fresh.childNodes];
  [...was.childNodes].forEach((child, i) => morph(child, children[i]));
}

// long returns a text, of which a reader unfolds what is more than a few lines.
export function long(text) {
  if (text.length <= 160) return text;
  return make("details", { class: "long" }, make("summary", {}, `${text.slice(0, 120)}…`), text);
}

// time returns a time as its age.
export const time = (t, text) => make("time", { datetime: t, title: t }, text);

// copier returns a button that copies a text. A page that did not come over HTTPS or from this machine may not copy: there
// the text is selected instead.
export function copier(text, label) {
  const button = make("button", { type: "button", class: "copy", "aria-label": `Copy ${label}`, "data-copy": text }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      setText(button, "copied");
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
      setText(button, "selected");
    }
    setTimeout(() => setText(button, "copy"), 2000);
  });
  return button;
}
