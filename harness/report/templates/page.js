"use strict";
// Without this script the page is complete; it only cannot be sorted, filtered or enlarged.

// Sort a table by a click on a column's title, or by Enter or Space on it.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, index) => {
    head.querySelector("button")?.addEventListener("click", () => {
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

// Filter rows, lines and figures by kind and value. A name like 2.1 is the second value of the third kind; what has
// no value of a kind stays, and so does the baseline where losses are chosen.
const form = document.getElementById("filters");
if (form) {
  const status = document.querySelector("#filtered output");
  const again = document.querySelector("#filtered button");
  const controls = [...form.elements].filter((one) => one.dataset.kind);
  const ofLosses = new Set(controls.filter((one) => "losses" in one.dataset).map((one) => one.dataset.kind));
  const parts = [...document.querySelectorAll("[data-filters]")].map((element) => ({ element, names: element.dataset.filters.split(" ") }));

  const wanted = (control) => {
    const value = control.value.trim();
    if (!control.list || !value) return value ? new Set([value]) : null;
    const matches = [...control.list.options].map((option, index) => [option.value.toLowerCase(), `${control.dataset.kind}.${index}`]);
    return new Set(matches.filter(([name]) => name.includes(value.toLowerCase())).map(([, name]) => name));
  };

  // a list, a table or a group of figures of which nothing is left says so
  const announce = (box, items, words) => {
    const empty = items.length > 0 && items.every((item) => item.hidden);
    if (empty && !box.nextElementSibling?.matches(".emptied")) {
      const message = document.createElement("p");
      message.className = "emptied";
      message.textContent = words;
      box.after(message);
    }
    box.hidden = empty;
    const message = box.nextElementSibling;
    if (message?.matches(".emptied")) message.hidden = !empty;
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
    for (const list of document.querySelectorAll(".points ul")) announce(list, [...list.children], "none that fits the filter");
    for (const box of document.querySelectorAll(".figures")) announce(box, [...box.children], "No figure fits the filter.");
    let [shown, all] = [0, 0];
    for (const table of document.querySelectorAll("table")) {
      const rows = [...table.tBodies[0].rows];
      announce(table.parentElement, rows, "No row of this table fits the filter.");
      if (rows.some((row) => row.dataset.filters)) {
        all += rows.length;
        shown += rows.filter((row) => !row.hidden).length;
      }
    }
    status.textContent = active.length ? `Filtered: ${shown.toLocaleString("en")} of ${all.toLocaleString("en")} rows shown.` : "";
    again.hidden = !active.length;
    status.parentElement.classList.toggle("active", active.length > 0);
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

// Mark the section that is being read in the bar of sections, and keep its name in view there.
const bar = document.querySelector("nav ol");
const names = new Map([...bar.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
const read = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    for (const link of names.values()) link.removeAttribute("aria-current");
    const link = names.get(target.id);
    link.setAttribute("aria-current", "true");
    bar.scrollLeft = link.offsetLeft - bar.clientWidth / 3;
  }
}, { rootMargin: "-20% 0px -75% 0px" });
for (const section of document.querySelectorAll("main > section")) read.observe(section);

// Enlarge a figure by a click on it or by its button, and save it as SVG or PNG made from the drawing in this page.
const dialog = document.getElementById("enlarged");
const frame = dialog.querySelector(".drawing");
let current = "";

// a drawing that stands alone, in the light colours: the first rule of the style sheet
const alone = (drawing) => {
  const copy = drawing.cloneNode(true);
  const [, , width, height] = copy.getAttribute("viewBox").split(" ").map(Number);
  copy.setAttribute("width", `${width}pt`);
  copy.setAttribute("height", `${height}pt`);
  const colours = document.styleSheets[0].cssRules[0].style;
  const text = new XMLSerializer().serializeToString(copy);
  return { width, height, text: text.replace(/var\((--\w+)\)/g, (_, name) => colours.getPropertyValue(name).trim()) };
};

const save = (blob, ending) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${current}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

const savers = {
  svg: () => save(new Blob([alone(frame.firstElementChild).text], { type: "image/svg+xml" }), "svg"),
  png: () => {
    const { width, height, text } = alone(frame.firstElementChild);
    const canvas = document.createElement("canvas");
    const scale = Math.min(160 / 72, 16000 / Math.max(width, height)); // 160 dots per inch, as in the files, if a canvas may be so large
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    const image = new Image();
    image.onload = () => {
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, "png"), "image/png");
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  },
};
for (const [ending, act] of Object.entries(savers)) dialog.querySelector(`[data-save=${ending}]`).addEventListener("click", act);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
dialog.addEventListener("close", () => frame.replaceChildren());

for (const figure of document.querySelectorAll("figure")) {
  const drawing = figure.querySelector(".drawing");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Enlarge";
  if (matchMedia("(max-width: 40rem)").matches) { // where every drawing scrolls, the keyboard reaches it
    drawing.tabIndex = 0;
    drawing.setAttribute("role", "group");
    drawing.setAttribute("aria-label", figure.querySelector("h3").textContent);
  }
  button.setAttribute("aria-label", `Enlarge: ${figure.querySelector("h3").textContent}`);
  button.addEventListener("click", () => {
    current = figure.id;
    dialog.querySelector("h2").textContent = figure.querySelector("h3").textContent;
    frame.replaceChildren(drawing.querySelector("svg").cloneNode(true));
    button.focus({ preventScroll: true }); // where Escape leads back to, also after a click on the drawing
    dialog.showModal();
  });
  drawing.classList.add("enlarges");
  drawing.addEventListener("click", () => button.click());
  figure.querySelector(".files").prepend(button, " · ");
}
