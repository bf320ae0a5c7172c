/* ---- What a correction changes --------------------------------------------------------------------------------------- */

const CHANGES_SHOWN_MAX = 200;

/** Shows the boards that a reversal or a decision changes: `changes` of its answer. */
function changesView(changes) {
  return (changes ?? []).map((change) => {
    const shown = change.users.slice(0, CHANGES_SHOWN_MAX);
    const left = change.users.length - shown.length;
    const score = (value) => (value === null ? "not on it" : value);
    const rows = shown.map((user) => [idText(user.userId), score(user.oldScore), score(user.newScore), signed(user.delta)]);
    const caption = [`Board ${change.boardId}`, change.period ? `past period ${change.period}` : "", left ? `${count(left, "further user")} not shown` : ""];
    return make("div", {},
      table(caption.filter(Boolean).join(", "), ["User", "Before", "After", "Change"], rows),
      change.top ? make("details", {}, make("summary", {}, `The first rows of ${change.boardId} after it`), rowsTable("", change.top)) : "");
  });
}

/** The rows of a ranking. */
function rowsTable(caption, entries) {
  if (!entries.length) return make("p", { class: "note" }, caption ? `${caption}: nobody yet.` : "Nobody.");
  return table(caption, ["Rank", "User", "Name", "Score"], entries.map((entry) => [entry.rank, idText(entry.userId), entry.displayName ? make("span", { dir: "auto" }, entry.displayName) : "", entry.score]));
}

/** Says in one sentence how much is changed. */
function extentText(answer) {
  const users = new Set((answer.changes ?? []).flatMap((change) => change.users.map((user) => user.userId))).size;
  const forgotten = answer.forgotten ? ` ${count(answer.forgotten, "action")} counted only in periods that are no longer kept.` : "";
  return `${count(answer.actions ?? 0, "action")} of ${count(users, "user")} on ${count((answer.changes ?? []).length, "board or period", "boards or periods")}.${forgotten}`;
}
