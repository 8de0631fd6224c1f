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
    else update(row, fresh);
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
  for (const row of old.values()) row.remove();
}

// update makes the cells of a row those of a fresh one. A progress bar stays the same element, so that it moves smoothly.
function update(row, fresh) {
  [...fresh.cells].forEach((cell, i) => {
    const was = row.cells[i];
    const bar = was.querySelector("progress");
    const wants = cell.querySelector("progress");
    if (bar && wants && bar.hasAttribute("value") === wants.hasAttribute("value")) {
      bar.max = wants.max;
      if (wants.hasAttribute("value")) bar.value = wants.value;
      wants.replaceWith(bar.cloneNode(true));
      [...cell.children].forEach((child, j) => {
        if (child.localName !== "progress" && was.children[j] && !was.children[j].isEqualNode(child)) was.children[j].replaceWith(child);
      });
      return;
    }
    if (!was.isEqualNode(cell)) was.replaceWith(cell);
  });
}
