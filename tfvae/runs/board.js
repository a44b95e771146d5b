(() => {
  const POLL = 2000;
  const PAGE = 100;
  const id = (name) => document.getElementById(name);
  const table = id("runs");
  const body = table.tBodies[0];
  const heads = [...table.querySelectorAll("thead button")];
  const [find, kind, shown] = ["find", "kind", "shown"].map(id);
  const inside = new URLSearchParams(location.search).get("in") || "";
  const rows = new Map();
  const opened = new Set();
  let runs = [];
  let key = "changed";
  let down = true;
  let page = 0;
  let lastText = "";

  const element = (name, text, attributes) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [one, value] of Object.entries(attributes || {})) made.setAttribute(one, value);
    return made;
  };
  const address = (run, path) => "/files/" + [inside, run.path === "." ? "" : run.path, path].filter(Boolean).join("/").split("/").map(encodeURIComponent).join("/");
  const span = (seconds) => {
    if (seconds < 90) return Math.max(0, Math.round(seconds)) + " s";
    const minutes = Math.round(seconds / 60);
    if (minutes < 90) return minutes + " min";
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? hours + " h " + (minutes % 60) + " min" : Math.round(hours / 24) + " d";
  };
  const values = {
    path: (run) => run.path, kind: (run) => run.kind, state: (run) => run.state,
    share: (run) => (run.total ? run.done / run.total : null), value: (run) => run.value,
    seconds: (run) => run.seconds, changed: (run) => run.changed,
  };
  const compare = (a, b) => {
    const [x, y] = [values[key](a), values[key](b)];
    // Those without a value are last in both orders.
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
    return (down ? -order : order) || a.path.localeCompare(b.path, undefined, { numeric: true });
  };
  const wanted = () => {
    const text = find.value.trim().toLowerCase();
    return runs.filter((run) =>
      (!kind.value || run.kind === kind.value) && (!shown.value || run.state === shown.value) &&
      (!text || (run.path + " " + run.kind + " " + run.state + " " + run.result + " " + run.note).toLowerCase().includes(text)));
  };

  const cells = (run) => {
    const name = element("td", undefined, { class: "t" });
    const text = run.path === "." ? "this folder" : run.path;
    if (run.report) name.append(element("a", text, { href: address(run, run.report) }));
    else name.append(text);
    if (run.note) name.append(element("span", run.note, { class: run.state === "failed" || /damaged|failed/.test(run.note) ? "why" : "plain why" }));
    const state = element("td", undefined, { class: "t" });
    state.append(element("span", run.state, { class: "badge", "data-state": run.state }));
    const progress = element("td", undefined, { class: "t amount" });
    if (run.total) progress.append(element("progress", undefined, { max: run.total, value: Math.min(run.done, run.total), "aria-label": "progress of " + text }));
    progress.append(run.done + (run.total ? " of " + run.total : "") + " " + run.unit);
    const open = element("td", undefined, { class: "t" });
    if (run.has_inside) open.append(element("a", run.unit, { href: "/?in=" + encodeURIComponent([inside, run.path].filter(Boolean).join("/")), "aria-label": run.unit + " of " + text }));
    if (run.figures.length) {
      const button = element("button", "figures (" + run.figures.length + ")", { type: "button", "aria-expanded": opened.has(run.path), "aria-label": "figures of " + text + " (" + run.figures.length + ")" });
      button.addEventListener("click", () => {
        if (!opened.delete(run.path)) opened.add(run.path);
        draw();
      });
      open.append(button);
    }
    return [
      name, state, progress, element("td", run.result, { class: "t" }), element("td", run.kind, { class: "t" }),
      element("td", run.seconds === null ? "" : span(run.seconds), { class: "n" }),
      element("td", undefined, { class: "n", "data-changed": run.changed }), open,
    ];
  };
  const pictures = (run) => {
    const cell = element("td", undefined, { colspan: 8 });
    const box = element("div", undefined, { class: "pictures" });
    for (const path of run.figures) {
      const link = element("a", undefined, { href: address(run, path) });
      const title = path.slice(path.lastIndexOf("/") + 1).replace(/\.png$/, "").replaceAll("_", " ");
      // The address changes with the run, so that the picture is of now.
      link.append(element("img", undefined, { src: address(run, path) + "?" + run.changed, alt: "", loading: "lazy" }), title);
      box.append(link);
    }
    cell.append(box);
    const row = element("tr");
    row.append(cell);
    return row;
  };
  const row = (run) => {
    const text = JSON.stringify(run) + opened.has(run.path);
    let known = rows.get(run.path);
    if (!known) {
      known = { row: element("tr"), more: null, text: "" };
      rows.set(run.path, known);
    }
    if (known.text !== text) {
      const focused = known.row.contains(document.activeElement) ? [...known.row.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
      known.text = text;
      known.row.replaceChildren(...cells(run));
      known.more = opened.has(run.path) && run.figures.length ? pictures(run) : null;
      if (focused >= 0) known.row.querySelectorAll("a, button")[focused]?.focus();
    }
    return known.more ? [known.row, known.more] : [known.row];
  };
  const ages = () => {
    const now = Date.now() / 1000;
    for (const cell of body.querySelectorAll("[data-changed]")) {
      const text = span(now - Number(cell.dataset.changed)) + " ago";
      if (cell.textContent !== text) cell.textContent = text;
    }
  };
  const options = (select, name) => {
    const counts = new Map();
    for (const run of runs) counts.set(run[name], (counts.get(run[name]) || 0) + 1);
    const chosen = select.value;
    const names = [...counts.keys()].sort();
    if (chosen && !counts.has(chosen)) names.push(chosen);
    const texts = names.map((one) => one + " (" + (counts.get(one) || 0) + ")");
    const made = ["all (" + runs.length + ")", ...texts].join("\n");
    if (select.dataset.made === made) return;
    select.dataset.made = made;
    select.replaceChildren(...["", ...names].map((one, i) => element("option", made.split("\n")[i], { value: one })));
    select.value = chosen;
  };
  const draw = () => {
    options(kind, "kind");
    options(shown, "state");
    const found = wanted().sort(compare);
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    const some = found.slice(page * PAGE, (page + 1) * PAGE);
    const made = some.flatMap(row);
    // Rows that stay in their place keep the focus.
    const now = [...body.children];
    if (made.length !== now.length || made.some((one, i) => one !== now[i])) {
      const active = document.activeElement;
      body.replaceChildren(...made);
      if (active && active !== document.activeElement && body.contains(active)) active.focus();
    }
    ages();
    id("count").textContent = found.length < runs.length ? found.length + " of " + runs.length + " shown" : "";
    id("none").hidden = found.length > 0;
    id("none").textContent = runs.length ? "No run is like this." : "There is no run in this folder yet. It is looked at every few seconds.";
    id("pager").hidden = pages < 2;
    id("before").disabled = page === 0;
    id("after").disabled = page === pages - 1;
    id("place").textContent = "page " + (page + 1) + " of " + pages;
  };
  const say = (text, state) => {
    const line = id("state");
    if (line.textContent !== text) line.textContent = text;
    line.dataset.state = state;
  };
  const poll = async () => {
    try {
      const answer = await fetch("/runs.json?in=" + encodeURIComponent(inside), { cache: "no-store" });
      if (!answer.ok) throw new Error(await answer.text());
      const text = await answer.text();
      if (text !== lastText) {
        lastText = text;
        const content = JSON.parse(text);
        runs = content.runs;
        const present = new Set(runs.map((run) => run.path));
        for (const path of rows.keys()) if (!present.has(path)) rows.delete(path);
        draw();
        const running = runs.filter((run) => run.state === "running").length;
        say(runs.length + (content.is_cut ? " runs, and more that are not listed" : runs.length === 1 ? " run" : " runs") + ", " + running + " running", "live");
      } else {
        ages();
      }
    } catch (error) {
      lastText = "";
      say("The board can not be read: " + (error instanceof TypeError ? "has it been stopped?" : error.message.trim()), "lost");
    }
  };
  const turn = (step) => { page += step; draw(); table.parentElement.scrollTop = 0; };
  heads.forEach((button) => button.addEventListener("click", () => {
    down = key === button.dataset.key ? !down : false;
    key = button.dataset.key;
    heads.forEach((one) => one.parentElement.removeAttribute("aria-sort"));
    button.parentElement.setAttribute("aria-sort", down ? "descending" : "ascending");
    draw();
  }));
  for (const [one, event] of [[find, "input"], [kind, "change"], [shown, "change"]]) {
    one.addEventListener(event, () => { page = 0; draw(); });
  }
  id("before").addEventListener("click", () => turn(-1));
  id("after").addEventListener("click", () => turn(1));
  if (inside) {
    id("where").append(" / " + inside, " ", element("a", "all runs", { href: "/", id: "up" }));
  }
  const loop = async () => {
    if (!document.hidden) await poll();
    setTimeout(loop, POLL);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  loop();
})();
