/* ---- The form of a board's rules ------------------------------------------------------------------------------------- */

/* A PUT replaces all rules, and what is left out has its default. So the form starts from all rules that the server has:
   title and points have fields, everything else is JSON. Before it is sent, the rules are read again: if somebody
   changed them meanwhile, nothing is sent. */

const NEW_RULES = { points: { ACTION_COMPLETED: 10 }, title: "", score: "sum", order: "descending", ranks: "unique" };
const worthText = (worth) => (typeof worth === "number" ? String(worth) : `${worth.min} to ${worth.max}`);

/** Reads what a reason is worth: "10", "-5" or "1 to 90". What is neither is sent as it is, and the server says why not. */
function readWorth(text) {
  const range = /^\s*(-?\d+)\s*(?:to|…|\.\.\.?)\s*(-?\d+)\s*$/.exec(text);
  if (range) return { min: Number(range[1]), max: Number(range[2]) };
  return /^\s*-?\d+\s*$/.test(text) ? Number(text) : text;
}

/** The fields for points, one pair for each reason. Gives the element and a function that reads it. */
function pointsFields(points) {
  const place = make("div", { class: "points" });
  const add = (reason, worth) => {
    const cells = [
      plainInput("points", { "aria-label": "Reason", value: reason, placeholder: "Reason" }),
      plainInput("points", { "aria-label": `Points of ${reason || "this reason"}`, value: worth, placeholder: "10 or 1 to 90" }),
    ];
    const remove = button("Remove", () => { for (const cell of [...cells, remove]) cell.remove(); more.focus(); });
    remove.setAttribute("aria-label", `Remove ${reason || "this reason"}`);
    place.append(...cells, remove);
    return cells[0];
  };
  const more = button("Add a reason", () => add("", "").focus());
  for (const [reason, worth] of Object.entries(points)) add(reason, worthText(worth));
  const read = () => {
    const inputs = [...place.querySelectorAll("input")];
    const pairs = inputs.flatMap((input, at) => (at % 2 === 0 ? [[input.value, readWorth(inputs[at + 1].value)]] : [])).filter(([reason, worth]) => reason !== "" || worth !== "");
    const twice = pairs.map(([reason]) => reason).find((reason, at, all) => all.indexOf(reason) !== at);
    if (twice !== undefined) throw new Refusal(`The reason ${twice} is there twice.`, { status: 400, details: { field: "points" } });
    return Object.fromEntries(pairs);
  };
  return { node: make("fieldset", {}, make("legend", {}, "Points ", make("span", { class: "note" }, "a number, or a range such as 1 to 90")), place, make("div", { class: "actions" }, more)), read };
}

/** What differs between two sets of rules, a line each. */
function differences(before, after) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const written = (value) => (value === undefined || value === null ? "nothing" : JSON.stringify(value));
  return names.flatMap((name) => {
    const [was, is] = [before[name], after[name]];
    if (JSON.stringify(was ?? null) === JSON.stringify(is ?? null)) return [];
    if (name !== "points" || !was) return [`${name}: ${written(was)} → ${written(is)}`];
    return differences(was, is).map((line) => `points of ${line}`);
  });
}

/** The form that makes a board (`board` null) or changes one. `done(answer)` is called after it was saved. */
function rulesForm(board, done) {
  const isNew = board === null;
  const { points, title = "", ...others } = isNew ? NEW_RULES : board.rules;
  const place = make("div", {});
  const idInput = plainInput("boardId", { required: true });
  const titleInput = plainInput("title", { value: title });
  const othersInput = make("textarea", { rows: Math.min(14, 2 + JSON.stringify(others, null, 1).split("\n").length), spellcheck: "false", name: "rules" });
  othersInput.value = JSON.stringify(others, null, 1);
  const reasons = pointsFields(points);

  const read = () => {
    let more;
    try { more = JSON.parse(othersInput.value || "{}"); } catch (error) { throw new Refusal(`The further rules are not JSON: ${error.message}`, { status: 400, details: { field: "rules" } }); }
    if (typeof more !== "object" || more === null || Array.isArray(more)) throw new Refusal("The further rules must be a JSON object.", { status: 400, details: { field: "rules" } });
    return { ...more, title: titleInput.value, points: reasons.read() };
  };
  const save = (pressed) => attempt(pressed, place, async () => {
    const rules = read();
    const boardId = isNew ? idInput.value : board.boardId;
    if (!boardId) throw new Refusal("A board needs an id.", { status: 400, details: { field: "boardId" } });
    const known = (await ask("GET", "boards")).boards.find((one) => one.boardId === boardId);
    if (isNew && known) throw new Refusal(`There is a board ${boardId} already. Open it to change it.`, { status: 409, details: { field: "boardId" } });
    if (!isNew && JSON.stringify(known?.rules) !== JSON.stringify(board.rules)) throw new Refusal("Somebody has changed these rules meanwhile. Open the board again.", { status: 409 });
    const lines = isNew ? Object.entries(rules).map(([name, rule]) => `${name}: ${JSON.stringify(rule)}`) : differences(board.rules, rules);
    if (!lines.length) { say("Nothing was changed."); return; }
    const body = [make("ul", {}, lines.map((line) => make("li", {}, line))), isNew ? "" : "This holds at once, from the next action on. It changes no score."];
    if (!await confirmed({ title: isNew ? `Make the board ${boardId}?` : `Change the rules of ${boardId}?`, body, verb: isNew ? "Make the board" : "Change the rules" })) return;
    const answer = await ask("PUT", "boards", { query: { boardId }, body: rules });
    await done(answer);
    say(isNew ? `The board ${boardId} is made.` : `The rules of ${boardId} are changed.`);
  });

  return form(save,
    make("div", { class: "fields" }, isNew ? field("Board id", idInput, { note: "It stays for ever." }) : "", field("Title", titleInput)),
    reasons.node,
    make("div", { class: "fields" }, field("Further rules (JSON)", othersInput, { size: "wide", note: "score, order, ranks, period, keep_periods, feeds, watch: as in PUT /boards/{boardId}." })),
    make("div", { class: "actions" }, make("button", { type: "submit", class: "main" }, isNew ? "Make the board…" : "Save the rules…")),
    place);
}
