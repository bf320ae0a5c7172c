/* What the address of a page for other places asks for: which board, and how it looks. Each is handed to the element.

   The token comes from the fragment of the address, which no server sees. A page that frames this one sets the frame's
   address again, with the new token after the #. */
const scoreboard = document.querySelector("live-scoreboard");
const asked = new URLSearchParams(location.search);
const boardId = asked.get("boardId") || "main";
scoreboard.setAttribute("board", boardId);
for (const name of ["rows", "title", "lang", "view"]) {
  if (asked.has(name)) scoreboard.setAttribute(name, asked.get(name));
}
if (asked.get("lang")) document.documentElement.lang = asked.get("lang");
const takeToken = () => { scoreboard.token = new URLSearchParams(location.hash.slice(1)).get("token") || ""; };
takeToken();
addEventListener("hashchange", takeToken);

const plain = asked.get("title") || (boardId === "main" ? "Scoreboard" : `${boardId} · Scoreboard`);
document.title = plain;
scoreboard.addEventListener("scoreboard-change", ({ detail }) => { document.title = asked.get("title") || detail.board.title || plain; });
// The element knows which way its language runs; what stands around it runs the same way.
scoreboard.addEventListener("scoreboard-state", () => {
  document.documentElement.dir = scoreboard.shadowRoot.querySelector("[part=board]").dir;
});
