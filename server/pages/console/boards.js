/* ---- Boards and periods ---------------------------------------------------------------------------------------------- */

const boardName = (board) => [board.title ? make("span", { dir: "auto" }, board.title) : "", board.title ? " " : "", idText(board.boardId)];

function boardState(board) {
  return [
    board.closed ? badge("closed", "bad") : "",
    board.over && !board.closed ? badge("over") : "",
    board.frozenAt ? badge("frozen", "hot") : "",
    board.freezesAt ? badge("freezes later") : "",
  ].filter(isShown);
}

const boardsPart = {
  id: "boards",
  title: "Boards",
  isAllowed: () => may("boards:write", "scores:read", "scores:write"),

  /** Shows all boards, or one: `within` is its id. */
  async show(section, boardId) {
    if (boardId) await showBoard(section, boardId);
    else await showBoards(section);
  },
};

async function showBoards(section) {
  const { boards } = await ask("GET", "boards");
  const rows = boards.map((board) => [
    make("a", { href: `#boards/${encodeURIComponent(board.boardId)}` }, boardName(board)), board.count, board.period ?? "",
    board.endsAt ? timeText(board.endsAt) : "", boardState(board),
  ]);
  section.replaceChildren(
    make("h2", { tabindex: "-1" }, "Boards"),
    table(count(boards.length, "board"), ["Board", "Users", "Period", "Ends", "State"], rows),
    may("boards:write") ? make("details", {}, make("summary", {}, "Make a board"), rulesForm(null, (made) => { location.hash = `#boards/${encodeURIComponent(made.boardId)}`; })) : "");
}

async function showBoard(section, boardId, focus = "") {
  const board = await ask("GET", "boards", { query: { boardId } });
  const place = make("div", {});
  const again = (focused) => showBoard(section, boardId, focused);
  const isLive = Boolean(board.frozenAt) && may("scores:read");
  const top = (caption, query) => ask("GET", "scoreboard/top", { query: { boardId, limit: 10, ...query } }).then(({ entries }) => rowsTable(caption, entries));
  const [shown, present, { periods }] = await Promise.all([
    top(board.frozenAt ? "What the public sees" : "The first rows", {}),
    isLive ? top("What counts now", { view: "live" }) : "",
    ask("GET", "boards/periods", { query: { boardId, view: isLive ? "live" : "" } }),
  ]);
  section.replaceChildren(...[
    make("div", { class: "bar" }, make("h2", { tabindex: "-1" }, boardName(board)), make("a", { href: "#boards" }, "All boards")),
    facts([
      ["State", boardState(board).length ? make("span", {}, ...boardState(board)) : "open"], ["Users", wholeNumber.format(board.count)], ["Period", board.period],
      ["Began", board.startsAt ? timeText(board.startsAt) : ""], ["Ends", board.endsAt ? timeText(board.endsAt) : "by hand only"],
      ["Frozen since", board.frozenAt ? timeText(board.frozenAt) : ""], ["Rows revealed", board.frozenAt ? wholeNumber.format(board.revealed ?? 0) : ""],
      ["Freezes", board.freezesAt ? timeText(board.freezesAt) : ""], ["Counts", `${board.score}, ${board.order}, ${board.ranks} ranks`],
    ]),
    make("div", { class: "actions" },
      make("a", { href: `./?boardId=${encodeURIComponent(boardId)}`, target: "_blank", rel: "noopener noreferrer" }, "Its public page"),
      button("Refresh", (event) => attempt(event.target, place, () => again("")))),
    may("boards:write") && !board.closed ? boardOrders(board, place, again) : "",
    place,
    make("div", { class: "side" }, shown, present),
    make("h3", {}, "Past periods"),
    pastPeriods(boardId, periods, isLive),
    may("boards:write") && board.rules && !board.closed ? make("details", {}, make("summary", {}, "Change title, points and rules"), rulesForm(board, () => again(""))) : "",
    board.closed ? "" : exampleRequest(board),
  ].filter(isShown));
  (focus ? [...section.querySelectorAll("button")].find((one) => one.textContent === focus) : null)?.focus();
}

/** A request that counts an action, for whoever builds a backend. */
function exampleRequest({ boardId, rules }) {
  const [reason, worth] = Object.entries(rules?.points ?? {})[0] ?? [];
  const action = { userId: "bob", actionId: "order-4711", boardId, ...(reason ? { reason } : {}), ...(worth?.min === undefined ? {} : { value: worth.min }) };
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [`curl ${quoted(new URL("scores/increment", here).href)}`, `-H "Authorization: Bearer $TOKEN"`, "-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(action))}`];
  return make("details", {}, make("summary", {}, "Send it an action"),
    make("p", { class: "note" }, "A backend sends one like this, with a token from ", make("code", {}, "scoreboard token --sub NAME"), ". All routes: ", make("a", { href: "docs" }, "API"), "."),
    make("pre", { tabindex: "0" }, make("code", {}, lines.join(" \\\n  "))));
}

/** The periods that ended, each with its ranking on demand. */
function pastPeriods(boardId, periods, isLive) {
  if (!periods.length) return make("p", { class: "note" }, "None has ended.");
  const place = make("div", {});
  const ranking = (period) => (event) => attempt(event.target, place, async () => {
    const { entries } = await ask("GET", "scoreboard/top", { query: { boardId, period, limit: 50, view: isLive ? "live" : "" } });
    place.replaceChildren(rowsTable(`The final ranking of ${period}, its first 50 rows`, entries));
    place.scrollIntoView({ block: "nearest" });
  });
  const rows = periods.map((one) => [
    one.period, timeText(one.startsAt), one.endsAt ? timeText(one.endsAt) : "", one.count,
    one.correctedAt ? ["corrected ", timeText(one.correctedAt)] : "", button("Ranking", ranking(one.period)),
  ]);
  return make("div", {}, table("", ["Period", "Began", "Ended", "Users", "Corrected", "Show"], rows), place);
}

/** What may be done with a board now. Each order asks first. `again` shows the board anew. */
function boardOrders(board, place, again) {
  const { boardId } = board;
  const query = { boardId };

  /** Makes a button that asks, sends, and tells. `focus`: the text of the button that has the focus afterwards. */
  const order = (text, kind, { asking, method = "POST", path, body, done }) => make("button", { type: "button", class: kind, click: (event) => attempt(event.currentTarget, place, async () => {
    const sent = typeof body === "function" ? body() : body;
    if (!await confirmed(asking(sent))) return;
    if (path === "boards/reveal") await checkRevealed(board);
    try {
      await ask(method, path, { query, body: sent });
    } catch (error) {
      if (error instanceof Refusal && error.isUnknown) await again(text).catch(() => {});
      throw error;
    }
    await again(text);
    say(done(sent));
  }) }, text);

  const orders = [];
  const fields = [];
  if (board.frozenAt) {
    const step = plainInput("step", { type: "number", min: "1", max: "1000", value: "1" });
    const rowsOf = ({ step: rows }) => count(rows, "row");
    fields.push(field("Rows to reveal", step, { size: "small" }));
    orders.push(order("Reveal…", "main", {
      path: "boards/reveal", body: () => ({ step: Number(step.value) }), done: (sent) => `${rowsOf(sent)} of ${boardId} revealed.`,
      asking: (sent) => ({ title: `Reveal the next ${rowsOf(sent)} of ${boardId}?`, verb: `Reveal ${rowsOf(sent)}`, body: `${wholeNumber.format(board.revealed ?? 0)} of its rows are revealed. Users who came after the freeze are next, then rows from the last place up. The public sees them as they are now, and that can't be taken back.` }),
    }));
  }
  if (board.frozenAt || board.freezesAt) {
    orders.push(order(board.frozenAt ? "Unfreeze…" : "Drop the freeze…", "", {
      path: "boards/unfreeze", body: {}, done: () => (board.frozenAt ? `${boardId} is no longer frozen.` : `The freeze of ${boardId} is dropped.`),
      asking: () => ({
        title: board.frozenAt ? `Unfreeze ${boardId}?` : `Drop the freeze of ${boardId}?`, verb: board.frozenAt ? "Unfreeze" : "Drop the freeze",
        body: board.frozenAt ? "The public sees at once, and all together, what counts now. That can't be taken back." : make("p", {}, "The board was to freeze at ", timeText(board.freezesAt), ". It will not."),
      }),
    }));
  }
  if (!board.frozenAt) {
    const at = plainInput("at", { type: "datetime-local", step: "1" });
    const when = () => {
      if (at.validity.badInput) throw new Refusal("The time of the freeze is not whole. Empty it to freeze now.", { status: 400, details: { field: "at" } });
      return at.value ? { at: new Date(at.value).toISOString() } : {};
    };
    fields.push(field("Freeze at", at, { note: "Your time. Empty: now." }));
    orders.push(order("Freeze…", "main", {
      path: "boards/freeze", body: when, done: (sent) => (sent.at ? `${boardId} will freeze.` : `${boardId} is frozen.`),
      asking: (sent) => ({ title: `Freeze ${boardId}?`, verb: "Freeze", body: sent.at ? make("p", {}, "From ", timeText(sent.at), " on the public sees no change. Counting goes on.") : "From now on the public sees no change. Counting goes on." }),
    }));
  }
  orders.push(order("End the period…", "", {
    path: "boards/reset", body: board.period ? { period: board.period } : {}, done: () => `A new period of ${boardId} has begun.`,
    asking: () => ({ title: `End the running period of ${boardId}?`, verb: "End the period", body: `${board.period ? `The period ${board.period}` : "The running period"} ends now, with ${count(board.count, "user")}. Its ranking is kept among the past periods, and all begin anew. That can't be taken back.` }),
  }));
  orders.push(order("Close…", "danger", {
    method: "DELETE", path: "boards", done: () => `${boardId} is closed.`,
    asking: () => ({ title: `Close ${boardId} for ever?`, verb: "Close for ever", word: boardId, body: "The board can still be read. Each further action on it is refused. A closed board can't be opened again." }),
  }));
  return make("div", {}, make("div", { class: "fields" }, fields), make("div", { class: "actions" }, orders));
}

/** A reveal shows more rows each time it is sent. So it is sent only if the board is as the operator saw it. */
async function checkRevealed(board) {
  const now = await ask("GET", "boards", { query: { boardId: board.boardId } });
  if (now.frozenAt === board.frozenAt && (now.revealed ?? 0) === (board.revealed ?? 0)) return;
  throw new Refusal("The board has changed since this page read it. Nothing was revealed: refresh, and look again.", { status: 409 });
}
