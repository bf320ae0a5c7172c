/* What the address of a page for other places asks for beside its board: how it looks. Each is handed to the element. */
for (const name of ["rows", "title", "lang", "view"]) {
  if (asked.has(name)) scoreboard.setAttribute(name, asked.get(name));
}
if (asked.get("lang")) document.documentElement.lang = asked.get("lang");
scoreboard.setAttribute("theme", document.documentElement.dataset.theme);

const plain = asked.get("title") || (boardId === "main" ? "Scoreboard" : `${boardId} · Scoreboard`);
document.title = plain;
scoreboard.addEventListener("scoreboard-change", ({ detail }) => { document.title = asked.get("title") || detail.board.title || plain; });
// The element knows which way its language runs; what stands around it runs the same way.
scoreboard.addEventListener("scoreboard-state", () => {
  document.documentElement.dir = scoreboard.shadowRoot.querySelector("[part=board]").dir;
});
