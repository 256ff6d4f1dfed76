// entries that contain every word; those whose title begins with the search come first
const form = document.querySelector(".bar form");
const field = form.querySelector("input");
const hits = document.getElementById("hits");
const MOST = 12;

const entries = INDEX.map(([title, kind, address, words]) => ({
  title, kind, address, text: `${title} ${kind} ${words}`.toLowerCase(), names: `${kind.replace(/^\S+ · /, "")} ${title}`.toLowerCase(),
}));

function rank(entry, asked) {
  if (entry.names.startsWith(asked) || entry.title.toLowerCase().startsWith(asked)) return 0;
  return entry.names.includes(asked) ? 1 : 2;
}

function matches() {
  const asked = field.value.trim().toLowerCase();
  const words = asked.split(/[\s_]+/).filter(Boolean);
  if (!words.length) return [];
  return entries
    .filter(entry => words.every(word => entry.text.includes(word)))
    .map((entry, place) => [rank(entry, asked), place, entry])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map(([, , entry]) => entry);
}

function show() {
  const found = matches();
  hits.replaceChildren(...found.slice(0, MOST).map(entry => {
    const link = document.createElement("a");
    link.href = form.dataset.root + entry.address;
    link.textContent = entry.title;
    const kind = document.createElement("span");
    kind.textContent = entry.kind;
    link.append(kind);
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
  if (found.length > MOST || (!found.length && field.value.trim())) {
    const rest = document.createElement("li");
    rest.className = "no";
    rest.textContent = found.length ? `and ${found.length - MOST} more: add a word` : "nothing found";
    hits.append(rest);
  }
  hits.hidden = !hits.children.length;
}

field.addEventListener("input", show);
field.addEventListener("focus", show);
form.addEventListener("submit", event => {
  event.preventDefault();
  const [first] = matches();
  if (first) location.href = form.dataset.root + first.address;
});
form.addEventListener("keydown", event => {
  const links = [...hits.querySelectorAll("a")];
  const at = links.indexOf(document.activeElement);
  if (event.key === "Escape") { hits.hidden = true; field.focus(); }
  if (event.key === "ArrowDown" && links.length) { event.preventDefault(); links[Math.min(at + 1, links.length - 1)].focus(); }
  if (event.key === "ArrowUp" && links.length) { event.preventDefault(); at > 0 ? links[at - 1].focus() : field.focus(); }
});
document.addEventListener("click", event => { if (!form.contains(event.target)) hits.hidden = true; });
