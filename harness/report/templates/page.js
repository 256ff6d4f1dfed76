"use strict";
// Without this script the page is complete; it only cannot be sorted, filtered or enlarged.

// Sort a table by a click on a column's title, or by Enter or Space on it.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, index) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      // numbers start with the greatest, words with a
      const order = before === "descending" ? "ascending" : before === "ascending" ? "descending" : numeric ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => parseFloat(row.cells[index].dataset.value ?? "NaN");
      const text = (row) => row.cells[index].textContent.trim();
      const compare = (a, b) => {
        if (!numeric) return sign * text(a).localeCompare(text(b), undefined, { numeric: true });
        const [x, y] = [value(a), value(b)];
        // rows without a value stay at the end, whichever way the others go
        return isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// Filter rows, lines and figures by what they are about. A name like 2.1 is the second value of the third kind; what is
// about nothing of a kind stays, and so does the baseline where losses are chosen.
const form = document.getElementById("filters");
if (form) {
  const told = document.querySelector("#filtered output");
  const again = document.querySelector("#filtered button");
  const controls = [...form.elements].filter((one) => one.dataset.kind);
  const ofLosses = new Set(controls.filter((one) => "losses" in one.dataset).map((one) => one.dataset.kind));
  const parts = [...document.querySelectorAll("[data-about]")].map((element) => ({ element, names: element.dataset.about.split(" ") }));

  const wanted = (control) => {
    const value = control.value.trim();
    if (!control.list || !value) return value ? new Set([value]) : null;
    const matches = [...control.list.options].map((option, index) => [option.value.toLowerCase(), `${control.dataset.kind}.${index}`]);
    return new Set(matches.filter(([name]) => name.includes(value.toLowerCase())).map(([, name]) => name));
  };

  // a list, a table or a group of figures of which nothing is left says so
  const tell = (box, items, words) => {
    const empty = items.length > 0 && items.every((item) => item.hidden);
    if (empty && !box.nextElementSibling?.matches(".emptied")) {
      const said = document.createElement("p");
      said.className = "emptied";
      said.textContent = words;
      box.after(said);
    }
    box.hidden = empty;
    const said = box.nextElementSibling;
    if (said?.matches(".emptied")) said.hidden = !empty;
  };

  const apply = () => {
    const active = controls.map((control) => [control.dataset.kind, wanted(control)]).filter(([, names]) => names);
    for (const { element, names } of parts) {
      element.hidden = active.some(([kind, chosen]) => {
        if (element.classList.contains("reference") && ofLosses.has(kind)) return false;
        const own = names.filter((name) => name.startsWith(`${kind}.`));
        return own.length > 0 && !own.some((name) => chosen.has(name));
      });
    }
    for (const list of document.querySelectorAll(".points ul")) tell(list, [...list.children], "none that fits the filter");
    for (const box of document.querySelectorAll(".figures")) tell(box, [...box.children], "No figure fits the filter.");
    let [shown, all] = [0, 0];
    for (const table of document.querySelectorAll("table")) {
      const rows = [...table.tBodies[0].rows];
      tell(table.parentElement, rows, "No row of this table fits the filter.");
      if (rows.some((row) => row.dataset.about)) {
        all += rows.length;
        shown += rows.filter((row) => !row.hidden).length;
      }
    }
    told.textContent = active.length ? `Filtered: ${shown.toLocaleString("en")} of ${all.toLocaleString("en")} rows shown.` : "";
    again.hidden = !active.length;
    told.parentElement.classList.toggle("active", active.length > 0);
  };

  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    const focused = document.activeElement === again;
    setTimeout(() => {
      apply();
      if (focused) controls[0].focus({ preventScroll: true });
    });
  });
  // a link into what is filtered away shows everything
  addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.closest("[hidden]")) {
      form.reset();
      setTimeout(() => target.scrollIntoView());
    }
  });
  apply(); // a browser may keep choices when a page is loaded again
}
