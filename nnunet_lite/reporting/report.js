"use strict";
// Tables that sort and can be searched, the switch of the outlines; without it the page shows all there is.
const value = (row, column) => row.cells[column].textContent.trim();
const asNumber = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : null);
const words = new Intl.Collator(undefined, { numeric: true });

function compare(a, b) {
  const [x, y] = [asNumber(a), asNumber(b)];
  if (x !== null && y !== null) return x - y;
  return words.compare(a, b);
}

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const descending = heads[column].getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const isEmpty = (row) => ["", "\u2013"].includes(value(row, column)); // dashes stay at the end
  const rows = [...body.rows].sort((a, b) => {
    const [first, second] = [isEmpty(a), isEmpty(b)];
    if (first || second) return first - second;
    return compare(value(a, column), value(b, column)) * (descending ? -1 : 1);
  });
  body.append(...rows);
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(table, column));
  });
}

for (const results of document.querySelectorAll(".results")) {
  const field = results.querySelector("input[type=search]");
  if (!field) continue;
  const rows = [...results.querySelectorAll("tbody tr")];
  const output = results.querySelector("output");
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = ![...row.cells].some((cell) => cell.textContent.toLowerCase().includes(wanted));
      shown += row.hidden ? 0 : 1;
    }
    output.textContent = wanted ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
  });
}

for (const gallery of document.querySelectorAll(".gallery")) {
  gallery.addEventListener("change", (event) => {
    if (event.target.name === "outlines") gallery.dataset.outlines = event.target.value;
  });
}
