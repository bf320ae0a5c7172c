/* The element of the page, and what its address says: which board, and the token.

   The token comes from the fragment of the address, which no server sees. A page that frames this one sets the frame's
   address again, with the new token after the #. */
const scoreboard = document.querySelector("live-scoreboard");
const asked = new URLSearchParams(location.search);
const boardId = asked.get("boardId") || "main";
scoreboard.setAttribute("board", boardId);
const takeToken = () => { scoreboard.token = new URLSearchParams(location.hash.slice(1)).get("token") || ""; };
takeToken();
addEventListener("hashchange", takeToken);
