// Making and keeping elements. All text is set as text, so that nothing that a client or an upstream says is taken for
// markup.

export const byId = (id) => document.getElementById(id);

// make is an element with attributes and children, which are elements or text.
export function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) e.setAttribute(name, value);
  e.append(...children.filter((c) => c !== undefined && c !== ""));
  return e;
}

// say sets an element's text, and leaves it alone where it says that already.
export function say(e, text) {
  if (typeof e === "string") e = byId(e);
  if (e.textContent !== text) e.textContent = text;
}

export const chip = (text, kind = "", title) => make("span", { class: `chip ${kind}`.trim(), title }, text);

// cell is one cell of a row: what it shows, and for a narrow screen what that is.
export const cell = (label, kind, ...children) =>
  make("td", { role: "cell", "data-label": label || undefined, class: kind || undefined }, ...children);

// rows keeps a table's rows in step with a list. A row whose cells come out as they were stays the element it is, with
// the reader's selection in it; key tells the items apart, cells makes a row's cells.
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
    else keep(row, fresh);
    if (row === next) next = next.nextElementSibling;
    else body.insertBefore(row, next);
  }
  for (const row of old.values()) row.remove();
}

// keep has a row show what a fresh one shows, cell by cell. A progress bar stays the same element, so that it glides.
function keep(row, fresh) {
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
