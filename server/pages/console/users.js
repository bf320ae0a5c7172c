/* ---- A user: ledger, name and erasure -------------------------------------------------------------------------------------- */

const LEDGER_PAGE = 50;

const usersPart = {
  id: "users",
  title: "Users",
  isAllowed: () => may("scores:read", "users:erase"),

  /** Shows the form; `within` is the user whose ledger is shown at once. */
  async show(section, userId) {
    const reads = may("scores:read");
    const userInput = plainInput("userId", { required: true, dir: "auto" });
    const boardInput = plainInput("boardId", {});
    const place = make("div", {});
    const found = make("div", { id: "user" });
    userInput.value = userId;
    const look = (pressed) => attempt(pressed, place, async () => {
      found.replaceChildren();
      if (!userInput.value) throw new Refusal("Which user? Type the id.", { status: 400, details: { field: "userId" } });
      if (reads) await showUser(userInput.value, boardInput.value, found);
      else found.replaceChildren(erasureView(userInput.value, null, found));
    });
    section.replaceChildren(
      make("h2", { tabindex: "-1" }, reads ? "A user's ledger" : "Erase a user"),
      form(look,
        make("div", { class: "fields" }, field("User id", userInput), reads ? field("Board", boardInput, { note: "Empty: all boards." }) : ""),
        make("div", { class: "actions" }, make("button", { type: "submit", class: "main" }, reads ? "Show the ledger" : "Choose this user"))),
      place, found);
    if (userId) await look(null);
  },
};

/** Shows all about a user: what is registered, the scores, the ledger, and the way out. */
async function showUser(userId, boardId, shown) {
  const data = await ask("GET", "users/data", { query: { userId, limit: 1 } });
  const scores = data.scores.map((one) => [idText(one.boardId), one.score, one.rank ?? "", timeText(one.updatedAt)]);
  const open = data.reviews.filter((review) => review.state === "open").length;
  shown.replaceChildren(...[
    make("h3", {}, idText(userId)),
    facts([
      ["Name", data.registered?.displayName ? make("span", { dir: "auto" }, data.registered.displayName) : ""],
      ["Registered", data.registered ? "yes" : "no"], ["On boards", data.registered?.active === false ? "no, inactive" : ""],
      ["Open reviews", open ? String(open) : ""], ["Scores in past periods", data.pastScores.length ? String(data.pastScores.length) : ""],
    ]),
    scores.length ? table("Scores now", ["Board", "Score", "Rank", "Since"], scores) : make("p", { class: "note" }, "No score on any board now."),
    await ledgerView(userId, boardId),
    may("users:write") ? nameView(userId, data.registered, () => showUser(userId, boardId, shown)) : "",
    may("users:erase") ? erasureView(userId, data, shown) : "",
  ].filter(isShown));
}

/* ---- Name and visibility --------------------------------------------------------------------------------------------- */

/** The form of a user's name, and of whether boards show the user. `again` shows the user anew. */
function nameView(userId, registered, again) {
  const place = make("div", {});
  const nameInput = plainInput("displayName", { value: registered?.displayName ?? "", dir: "auto" });
  const activeInput = make("input", { type: "checkbox", name: "active", checked: registered?.active !== false });
  const save = (pressed) => attempt(pressed, place, async () => {
    const asked = { displayName: nameInput.value || null, active: activeInput.checked };
    const known = { displayName: registered?.displayName ?? null, active: registered?.active !== false };
    const lines = differences(known, asked);
    if (registered && !lines.length) { say("Nothing was changed."); return; }
    const body = [registered ? "" : "The user is registered with this.", make("ul", {}, lines.map((line) => make("li", {}, line))), asked.active ? "" : "An inactive user keeps all scores, and no board shows them."];
    if (!await confirmed({ title: `Change the user ${userId}?`, body, verb: "Change the user" })) return;
    await ask("PUT", "users", { query: { userId }, body: asked });
    await again();
    say("The user is changed.");
  });
  return make("details", {}, make("summary", {}, "Change the name, or hide the user"),
    form(save,
      make("div", { class: "fields" }, field("Display name", nameInput, { note: "Empty: none, and boards show the id." })),
      make("label", { class: "check" }, activeInput, "Boards show the user"),
      make("div", { class: "actions" }, make("button", { type: "submit", class: "main" }, "Save…"))),
    place);
}

/* ---- The ledger ------------------------------------------------------------------------------------------------------ */

const WHAT = { increment: "action", import: "import", user: "registration", reversal: "reversal", review: "review", erasure: "erasure" };

/** Pages of a user's history, the newest first. Chosen actions can be handed to a reversal. */
async function ledgerView(userId, boardId) {
  const corrects = may("scores:correct");
  const columns = ["When", ...(corrects ? ["Choose"] : []), "What", "Board", "Change", "Score", "Why", "Id", "Sent by"];
  const rows = table(`Ledger of ${userId}, the newest first`, columns, []);
  const note = make("p", { class: "note", role: "status" });
  const fault = make("div", {});
  const chosen = new Set();
  const takeBack = corrects ? button("Take the chosen back…", () => openCorrections({ actionIds: [...chosen].join("\n") }), "danger") : "";
  const more = button("Older entries", (event) => attempt(event.target, fault, load));
  let cursor = "";
  let shown = 0;

  const choose = (entry) => {
    if (entry.type !== "increment" || entry.reversedBy) return "";
    const box = make("input", { type: "checkbox", "aria-label": `Choose ${entry.actionId}` });
    box.addEventListener("change", () => { if (box.checked) chosen.add(entry.actionId); else chosen.delete(entry.actionId); takeBack.disabled = chosen.size === 0; });
    return box;
  };
  async function load() {
    const page = await ask("GET", "scores/history", { query: { userId, boardId, limit: LEDGER_PAGE, cursor } });
    const body = rows.querySelector("tbody");
    const lines = page.entries.map((entry) => [timeText(entry.time), ...(corrects ? [choose(entry)] : []), ...ledgerCells(entry)]);
    const classes = page.entries.map((entry) => (entry.reversedBy ? "gone" : ""));
    body.append(...table("", columns, lines, classes).querySelector("tbody").children);
    shown += page.entries.length;
    cursor = page.nextCursor ?? "";
    more.hidden = !cursor;
    const end = cursor ? (page.entries.length ? "" : " None of the last events that were looked at: go on.") : page.complete ? " That is all." : ` The log begins at event ${wholeNumber.format(page.oldestSeq)}; what was before is no longer known.`;
    note.textContent = `${count(shown, "entry", "entries")} shown.${end}`;
  }

  if (takeBack) takeBack.disabled = true;
  await load();
  return make("div", {}, rows, note, fault, make("div", { class: "actions" }, more, takeBack));
}

/** The cells of one entry after its time, and after the box where an action is chosen. */
function ledgerCells(entry) {
  const flags = [
    entry.reversedBy ? badge(`taken back by ${entry.reversedBy.reversalId}`, "bad") : "", entry.held ? badge("held", "hot") : "",
    entry.again === true ? badge("counts again") : "", entry.active === false ? badge("inactive") : "",
  ];
  const scores = (entry.scores ?? []).map((one) => `${one.boardId} → ${one.score === null ? "none" : wholeNumber.format(one.score)}${one.endedSeq ? " (past period)" : ""}`);
  const fed = (entry.fed ?? []).map((one) => `${one.boardId} ${signed(one.delta)} → ${wholeNumber.format(one.newScore)}${one.held ? " (held)" : ""}`);
  const why = [entry.reason ?? "", entry.displayName ? `named ${entry.displayName}` : "", entry.type === "user" && entry.displayName === null ? "no name" : ""].filter(Boolean).join(" ");
  const id = entry.actionId ?? entry.reversalId ?? entry.reviewId ?? entry.importId;
  const back = entry.type === "reversal" && !entry.again && may("scores:correct") ? button("Take it back…", () => openCorrections({ actionIds: entry.reversalId })) : "";
  return [
    [WHAT[entry.type], " ", ...flags].filter(isShown), entry.boardId ? idText(entry.boardId) : "",
    entry.delta === undefined ? "" : signed(entry.delta), entry.newScore === undefined ? [...scores, ...fed].join(", ") : [wholeNumber.format(entry.newScore), fed.length ? make("div", { class: "note" }, fed.join(", ")) : ""].filter(isShown),
    make("span", { dir: "auto" }, why), [id ? idText(id) : "", back].filter(isShown), idText(entry.caller),
  ];
}

/* ---- Erasure --------------------------------------------------------------------------------------------------------- */

/** The way to erase a user. `data` is what is known of the user, null if the token may not read it. `shown` holds the user's view. */
function erasureView(userId, data, shown) {
  const place = make("div", {});
  const where = data ? `It is on ${count(data.scores.length, "board")} now${data.scores.length ? ` (${data.scores.slice(0, 10).map((one) => one.boardId).join(", ")})` : ""} and in ${count(data.pastScores.length, "past ranking")}.` : "";
  const erase = (event) => attempt(event.target, place, async () => {
    const agreed = await confirmed({
      title: `Erase the user ${userId}?`, verb: "Erase for ever", word: userId,
      body: [
        make("p", {}, `The id ${userId} and its name leave all boards, past rankings, reviews and the history at once, and every file of every node soon after. ${where}`),
        "Actions stay used: a retry of one is refused. Backups that you have made still name the user.", make("strong", {}, "This can't be undone."),
      ],
    });
    if (!agreed) return;
    const answer = await ask("DELETE", "users", { query: { userId } });
    shown.replaceChildren(make("div", { class: "warning", role: "status" },
      make("p", {}, `${userId} is erased${answer.applied ? "" : " already"}: off all boards, with ${count(answer.actions, "action")}. No file names the user after `, timeText(answer.filesBy), ".")));
    say("The user is erased.");
  });
  return make("details", {}, make("summary", {}, "Erase this user"),
    make("p", { class: "note" }, "For a person who asks to be forgotten. To take points back, use a correction."),
    make("div", { class: "actions" }, button(`Erase ${userId}…`, erase, "danger")), place);
}
