"use strict";
(() => {
  const value = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.value;
    if (given === undefined) return cell.textContent;
    return given === "" ? null : Number(given);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const sort = (column) => {
      const head = heads[column];
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row) => [value(row, column), row]);
      // Rows without a value are last in both orders.
      keyed.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const isNumber = typeof a === "number" && typeof b === "number";
        const order = isNumber ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
        return down ? -order : order;
      });
      body.append(...keyed.map(([, row]) => row));
    };
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => sort(column));
    });
    const filters = table.closest(".panel").querySelector(".filter");
    if (!filters) continue;
    const find = filters.querySelector("input");
    const show = filters.querySelector("select");
    const count = filters.querySelector("output");
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
    find.addEventListener("input", filter);
    show.addEventListener("change", filter);
    filter();
  }
  for (const chart of document.querySelectorAll(".chart")) {
    const area = chart.querySelector(".area");
    const cursor = chart.querySelector(".cursor");
    const reading = chart.querySelector(".reading");
    const heads = [...chart.querySelectorAll("thead th")].map((one) => one.textContent);
    // In the order of x, whatever the table is sorted by.
    const rows = [...chart.querySelectorAll("tbody tr")]
      .map((row) => [Number(row.dataset.at), [...row.cells].map((one) => one.textContent)])
      .sort(([a], [b]) => a - b);
    let now = -1;
    const read = (i) => {
      now = i;
      cursor.hidden = i < 0;
      if (i < 0) { reading.textContent = ""; return; }
      const [at, texts] = rows[i];
      cursor.style.left = 100 * at + "%";
      reading.style.left = at < 0.5 ? 100 * at + "%" : "auto";
      reading.style.right = at < 0.5 ? "auto" : 100 * (1 - at) + "%";
      const lines = texts.map((text, k) => [heads[k], text]).filter(([, text]) => text !== "");
      reading.textContent = lines.map(([head, text], k) => head + (k ? ": " : " ") + text).join("\n");
    };
    const near = (event) => {
      const box = area.getBoundingClientRect();
      const at = (event.clientX - box.left) / box.width;
      let best = 0;
      rows.forEach(([one], i) => { if (Math.abs(one - at) < Math.abs(rows[best][0] - at)) best = i; });
      read(best);
    };
    area.addEventListener("pointermove", near);
    area.addEventListener("pointerdown", near);
    area.addEventListener("pointerleave", () => read(-1));
    area.addEventListener("blur", () => read(-1));
    area.addEventListener("keydown", (event) => {
      const last = rows.length - 1;
      const next = { ArrowLeft: Math.max(now - 1, 0), ArrowRight: Math.min(now + 1, last), Home: 0, End: last, Escape: -1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      read(next);
    });
  }
})();
