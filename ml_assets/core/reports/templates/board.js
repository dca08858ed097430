"use strict";
// Sorts the table by the column that is clicked, and keeps the rows that hold every word that is typed.
const table = document.querySelector("table.board");
const body = table.tBodies[0];
const rows = Array.from(body.rows);
const key = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value === undefined ? cell.textContent.trim() : cell.dataset.value;
  const number = Number(text);
  return text === "" || text === "\u2014" ? null : Number.isNaN(number) ? text : number;
};
const compare = (a, b) =>
  typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
  head.dataset.sortable = "";
  head.addEventListener("click", () => {
    const isDescending = head.getAttribute("aria-sort") !== "descending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
    const keyed = rows.map((row) => [key(row, column), row]);
    const known = keyed.filter(([value]) => value !== null).sort(([a], [b]) => compare(a, b));
    if (isDescending) known.reverse();
    body.append(...known.map(([, row]) => row), ...keyed.filter(([value]) => value === null).map(([, row]) => row));
  });
});
const search = document.querySelector("input.search");
search.hidden = false;
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter((word) => word);
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
});
