"use strict";
// A click on a title sorts the rows by that column: first the largest numbers, or the words from A.
const number = (text) => {
  const found = text.replace(/,/g, "").replace(/−/g, "-").match(/^[^\d+-]*([+-]?\d+(\.\d+)?)/);
  return found ? Number(found[1]) : -Infinity;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.querySelectorAll("th")];
  titles.forEach((title, column) => title.querySelector("button").addEventListener("click", () => {
    const numeric = title.classList.contains("number");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = title.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].textContent.trim();
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      if (!numeric) return sign * key(a).localeCompare(key(b));
      const [x, y] = [number(key(a)), number(key(b))];
      if (x === y) return 0;
      // What has no number stays at the end.
      if (x === -Infinity || y === -Infinity) return x === -Infinity ? 1 : -1;
      return sign * (x - y);
    });
    titles.forEach((other_title) => other_title.removeAttribute("aria-sort"));
    title.setAttribute("aria-sort", order);
    table.tBodies[0].append(...rows);
  }));
}
