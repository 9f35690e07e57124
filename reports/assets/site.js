"use strict";
// Tables that sort: the header cells become buttons. Cells bring the numbers that they are sorted by (data-key).
(() => {
  const keyOf = (row, column) => row.cells[column].dataset.key;

  function compare(first, second, column, sign) {
    const [a, b] = [keyOf(first, column), keyOf(second, column)];
    if (a === "" || b === "") return (a === "") - (b === ""); // what is undefined comes last, whatever the order
    if (a !== undefined && b !== undefined) return sign * (Number(a) - Number(b));
    const texts = [first, second].map((row) => row.cells[column].textContent);
    return sign * texts[0].localeCompare(texts[1], "en", { numeric: true });
  }

  function sort(table, header) {
    const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((first, second) => compare(first, second, header.cellIndex, sign));
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll(".scroll table")) {
    for (const header of table.tHead?.rows[0].cells ?? []) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header));
      header.append(button);
    }
  }
})();
