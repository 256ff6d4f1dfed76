// hide what does not contain every word of the search, and what stands above the losses meanwhile
const find = document.getElementById("find");
const cards = [...document.querySelectorAll("article.loss")].map(card => [card, card.textContent.toLowerCase()]);
find.addEventListener("input", () => {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const [card, text] of cards) {
    card.hidden = !words.every(word => text.includes(word));
    shown += !card.hidden;
  }
  for (const family of document.querySelectorAll(".family"))
    family.hidden = !family.querySelector("article:not([hidden])");
  document.getElementById("tasks").hidden = words.length > 0;
  document.getElementById("none").hidden = shown > 0;
});
