"use strict";
(() => {
  const board = document.getElementById("board");
  const filter = document.getElementById("filter");
  const state = { sort: "", filter: "" };

  function number(text) {
    const value = Number(text);
    return text !== "" && Number.isFinite(value) ? value : null;
  }

  function order(a, b) {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return x - y;
    if (x !== null) return -1;
    if (y !== null) return 1;
    return a.localeCompare(b);
  }

  function render() {
    const heads = [...board.tHead.rows[0].cells];
    const body = board.tBodies[0];
    const rows = [...body.rows];
    const [key, direction] = state.sort.split(".");
    const at = heads.findIndex((head) => head.dataset.key === key);
    heads.forEach((head, index) => {
      const kind = direction === "desc" ? "descending" : "ascending";
      head.setAttribute("aria-sort", index === at ? kind : "none");
    });
    if (at >= 0) {
      const sign = direction === "desc" ? -1 : 1;
      rows.sort((a, b) => sign * order(a.cells[at].dataset.value, b.cells[at].dataset.value));
      body.append(...rows);
    }
    const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      // Each cell also answers to "heading value": "steps 20".
      const text = [...row.cells]
        .map((cell, index) => heads[index].textContent.trim() + " " + cell.dataset.value + " " + cell.textContent)
        .join(" ")
        .toLowerCase();
      const fits = words.every((word) => text.split(/\s+/).some((part) => part.startsWith(word)));
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    document.getElementById("count").textContent = shown + " of " + rows.length + " rows";
    if (filter.value !== state.filter) filter.value = state.filter;
  }

  function remember() {
    const parts = [];
    if (state.sort) parts.push("sort=" + encodeURIComponent(state.sort));
    if (state.filter) parts.push("filter=" + encodeURIComponent(state.filter));
    history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname + location.search);
  }

  // "#sort=robust.desc&filter=linf" restores the table, "#cell-3" opens a cell.
  function restore() {
    const hash = location.hash.slice(1);
    const target = hash && !hash.includes("=") && document.getElementById(hash);
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
    if (hash.includes("=")) {
      const wanted = new URLSearchParams(hash);
      state.sort = wanted.get("sort") || "";
      state.filter = wanted.get("filter") || "";
    }
    if (board) render();
  }

  if (board) {
    board.tHead.addEventListener("click", (event) => {
      const head = event.target.closest("th");
      if (!head) return;
      // Figures are wanted largest first, words from the start of the alphabet.
      const first = head.classList.contains("num") ? "desc" : "asc";
      const [key, direction] = state.sort.split(".");
      const same = key === head.dataset.key;
      state.sort = head.dataset.key + "." + (same ? (direction === "asc" ? "desc" : "asc") : first);
      render();
      remember();
    });
    filter.addEventListener("input", () => {
      state.filter = filter.value;
      render();
      remember();
    });
  }
  window.addEventListener("hashchange", restore);
  restore();

  // Hover texts at once, also by tapping; the plain <title> remains where scripts are off.
  const tip = document.getElementById("tip");
  for (const spot of document.querySelectorAll(".spot")) {
    const title = spot.querySelector("title");
    spot.dataset.tip = title.textContent;
    title.remove();
  }
  function show(event) {
    const spot = event.target.closest && event.target.closest(".spot");
    tip.hidden = !spot;
    if (!spot) return;
    tip.textContent = spot.dataset.tip;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const y = event.clientY - box.height - 12;
    tip.style.left = Math.max(8, x) + "px";
    tip.style.top = (y < 8 ? event.clientY + 18 : y) + "px";
  }
  for (const kind of ["pointermove", "pointerdown"]) document.addEventListener(kind, show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Paper cannot be clicked.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.cellpage:not([open])")];
    closed.forEach((part) => { part.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
})();
