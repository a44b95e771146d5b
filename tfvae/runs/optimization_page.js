"use strict";
(() => {
  const table = document.querySelector("#queries table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const find = document.getElementById("find");
  const show = document.getElementById("show");
  const count = document.getElementById("count");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = () => {
    const wanted = find.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !texts[i].includes(wanted) || (show.value !== "" && row.dataset.kind !== show.value);
      shown += !row.hidden;
    });
    count.textContent = shown < rows.length ? shown + " of " + rows.length + " shown" : "";
  };
  const value = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.value;
    if (given === undefined) return cell.textContent;
    return given === "" ? null : Number(given);
  };
  const sort = (column) => {
    const head = heads[column];
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = rows.map((row) => [value(row, column), row]);
    // Rows without a value are last in both orders.
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return down ? -order : order;
    });
    body.append(...keyed.map(([, row]) => row));
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(column));
  });
  find.addEventListener("input", filter);
  show.addEventListener("change", filter);
  filter();
})();
