/* ---- The queue of reviews -------------------------------------------------------------------------------------------- */

const RULES = { growth_per_minute: "growth in a minute", growth_per_hour: "growth in an hour", callers_per_user: "callers in an hour", outlier_z: "far from the others" };

const reviewsPart = {
  id: "reviews",
  title: "Reviews",
  isAllowed: () => may("scores:review"),

  async show(section) {
    const place = make("div", {});
    const list = make("div", {});
    const stateInput = make("select", { name: "state" }, ["open", "accepted", "reversed", "all"].map((state) => make("option", { value: state }, state)));
    const boardInput = plainInput("boardId", {});
    const filter = () => ({ state: stateInput.value, boardId: boardInput.value });
    const look = (pressed) => attempt(pressed, place, async () => { list.replaceChildren(await reviewsView(filter(), () => look(null))); });
    section.replaceChildren(make("h2", { tabindex: "-1" }, "Reviews"),
      form(look,
        make("div", { class: "fields" }, field("State", stateInput, { size: "small" }), field("Board", boardInput, { note: "Empty: all boards." })),
        make("div", { class: "actions" }, make("button", { type: "submit" }, "Show"))),
      place, list);
    await look(null);
  },
};

/** Pages of the queue, the oldest first. `again` shows it anew. */
async function reviewsView(filter, again) {
  const columns = ["User", "Board", "Rule", "Found", "Limit", "Score at the flag", "Since", "State", "Decide"];
  const rows = table("Users whom a board's watch flagged, the oldest first", columns, []);
  const note = make("p", { class: "note", role: "status" });
  const fault = make("div", {});
  const more = button("More", (event) => attempt(event.target, fault, load));
  let cursor = "";
  let shown = 0;
  async function load() {
    const page = await ask("GET", "reviews", { query: { ...filter, limit: 50, cursor } });
    rows.querySelector("tbody").append(...table("", columns, page.reviews.map((review) => reviewCells(review, fault, again))).querySelector("tbody").children);
    shown += page.reviews.length;
    cursor = page.nextCursor ?? "";
    more.hidden = !cursor;
    rows.hidden = shown === 0;
    note.textContent = `${count(shown, "review")} shown, ${wholeNumber.format(page.open)} open on all boards.${page.passedOver ? ` For ${count(page.passedOver, "flag")} the queue had no room.` : ""}`;
  }
  await load();
  return make("div", {}, note, fault, rows, make("div", { class: "actions" }, more));
}

function reviewCells(review, fault, again) {
  const decided = review.state === "open" ? "" : make("div", { class: "note" }, `by ${review.decidedBy ?? "?"} `, review.decidedAt ? timeText(review.decidedAt) : "", review.note ? `: ${review.note}` : "");
  const state = [badge(review.state, review.state === "open" ? "hot" : ""), review.held ? badge(`${wholeNumber.format(review.held)} held`, "hot") : "", decided].filter(isShown);
  const ledger = may("scores:read") ? make("a", { href: `#users/${encodeURIComponent(review.userId)}`, "aria-label": `Ledger of ${review.userId}` }, "Ledger") : "";
  const decide = (decision, text, kind) => make("button", { type: "button", class: kind, "aria-label": `${text.replace("…", "")} ${review.userId} on ${review.boardId}`, click: (event) => attempt(event.currentTarget, fault, () => decideReview(review, decision, again)) }, text);
  const orders = review.state === "open" ? [decide("accept", "Accept…", "main"), decide("reverse", "Reverse…", "danger")] : [];
  return [
    make("span", {}, idText(review.userId)), idText(review.boardId), RULES[review.rule] ?? review.rule, review.value, review.limit, review.score, timeText(review.since), state,
    make("div", { class: "actions" }, [...orders, ledger].filter(isShown)),
  ];
}

/** Previews a decision, asks, and sends it. */
async function decideReview(review, decision, again) {
  const path = `reviews/${encodeURIComponent(review.reviewId)}`;
  const preview = await ask("POST", path, { body: { decision, preview: true } });
  const noteInput = plainInput("note", { dir: "auto" });
  const what = { accept: "The points are good. What is held counts.", reverse: "What the user did on this board since then is taken back, and all that is held." }[decision];
  const agreed = await confirmed({
    title: decision === "accept" ? `Accept ${review.userId} on ${review.boardId}?` : `Take back what ${review.userId} did on ${review.boardId}?`,
    verb: decision === "accept" ? "Accept" : "Take it back",
    body: [what, preview.actions ? extentText(preview) : "No score changes.", ...changesView(preview.changes), field("Note", noteInput, { note: "The log keeps it. It may be empty." })],
  });
  if (!agreed) return;
  const done = await ask("POST", path, { body: { decision, ...(noteInput.value ? { note: noteInput.value } : {}) } });
  await again();
  say(decision === "accept" ? `${review.userId} is accepted.` : `Taken back: ${count(done.actions ?? 0, "action")} of ${review.userId}.`);
}
