/* ---- Corrections: reversals ------------------------------------------------------------------------------------------ */

/* A reversal is shown before it is made: the preview says what would change, and only then there is a button that
   applies it. What is applied is what was shown: actions that came after the preview stay. The page makes the
   reversalId, shows it, and keeps it for a retry. Whatever is typed afterwards makes a new preview necessary. */

let handedOver = {};

/** Opens the form of a reversal with these fields filled in. */
function openCorrections(fields) {
  handedOver = fields;
  if (location.hash === "#corrections") openHash(); else location.hash = "#corrections";
}

/** An id that nobody has used: the day, and 48 random bits. */
function newReversalId() {
  const random = [...crypto.getRandomValues(new Uint8Array(6))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `console-${new Date().toISOString().slice(0, 10)}-${random}`;
}

/** Reads a bound: a seq, or a time. A time without an offset is the reader's. What is neither goes as it is. */
function readBound(text) {
  const plain = text.trim();
  if (!plain) return undefined;
  if (/^\d+$/.test(plain)) return Number(plain);
  const isLocal = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/.test(plain);
  const at = isLocal ? new Date(plain.replace(" ", "T")) : null;
  return at && !Number.isNaN(at.getTime()) ? at.toISOString() : plain;
}

const correctionsPart = {
  id: "corrections",
  title: "Corrections",
  isAllowed: () => may("scores:correct"),

  async show(section) {
    const given = handedOver;
    handedOver = {};
    section.replaceChildren(make("h2", { tabindex: "-1" }, "Take points back"),
      make("p", {}, "The scores are then what they would be if the actions had never been. Nothing is changed before you have seen it."), reversalForm(given), lookUpForm());
  },
};

const WAYS = [
  ["actionIds", "Single actions", "Action ids, one a line", "Or one reversal id alone: that reversal is taken back, and its actions count again."],
  ["userId", "All of a user", "User id", ""],
  ["caller", "All that a caller sent", "Caller (the token's sub)", ""],
];

function reversalForm(given) {
  const place = make("div", {});
  const preview = make("div", { id: "preview" });
  const controls = { actionIds: make("textarea", { name: "actionIds", rows: "4", spellcheck: "false" }), userId: plainInput("userId", { dir: "auto" }), caller: plainInput("caller", {}) };
  const fields = Object.fromEntries(WAYS.map(([name, , label, note]) => [name, field(label, controls[name], { note, size: name === "actionIds" ? "wide" : "" })]));
  const from = plainInput("from", { placeholder: "4711 or 2026-11-30 18:00" });
  const to = plainInput("to", { placeholder: "4711 or 2026-11-30 18:00" });
  const range = [field("From", from, { note: "An event's number or a time of yours, included. Empty: the first." }), field("To", to, { note: "The same. Empty: until the preview." })];
  const reason = plainInput("reason", { required: true, dir: "auto" });
  const chosen = WAYS.find(([name]) => given[name])?.[0] ?? "actionIds";
  let reversalId = newReversalId();

  const way = () => box.querySelector("[name=way]:checked").value;
  const arrange = () => {
    for (const [name] of WAYS) fields[name].hidden = name !== way();
    for (const each of range) each.hidden = way() === "actionIds";
  };
  const body = () => {
    const name = way();
    const value = name === "actionIds" ? controls.actionIds.value.split("\n").filter((line) => line.trim()) : controls[name].value;
    return { reversalId, reason: reason.value, [name]: value, ...(name === "actionIds" ? {} : { from: readBound(from.value), to: readBound(to.value) }) };
  };
  const look = (pressed) => attempt(pressed, place, async () => {
    preview.replaceChildren();
    const asked = body();
    const answer = await ask("POST", "reversals", { body: { ...asked, preview: true } });
    // Without an end, what comes between the preview and the order would be taken back unseen.
    const sent = way() !== "actionIds" && asked.to === undefined ? { ...asked, to: answer.seq } : asked;
    preview.replaceChildren(previewView(answer, sent, place, preview, () => { reversalId = newReversalId(); }));
    preview.querySelector("h3").focus();
  });

  const box = form(look,
    make("fieldset", {}, make("legend", {}, "What is taken back"), make("div", { class: "choices" }, WAYS.map(([name, text]) => make("label", {}, make("input", { type: "radio", name: "way", value: name, checked: name === chosen, change: arrange }), text)))),
    make("div", { class: "fields" }, Object.values(fields), range),
    make("div", { class: "fields" }, field("Reason", reason, { note: "The log keeps it for ever.", size: "wide" })),
    make("div", { class: "actions" }, make("button", { type: "submit", class: "main" }, "Preview")));
  box.addEventListener("input", () => {
    if (preview.hasChildNodes()) { preview.replaceChildren(); reversalId = newReversalId(); }
  });
  for (const [name, value] of Object.entries(given)) ({ ...controls, from, to, reason })[name].value = value;
  arrange();
  return make("div", {}, box, place, preview);
}

/** What a reversal would do, and the button that does it. `shown` holds the preview, `made` is called once it is done. */
function previewView(answer, sent, place, shown, made) {
  const verb = answer.again ? "Let them count again" : "Take them back";
  const nothing = !answer.actions;
  const apply = async (event) => attempt(event.target, place, async () => {
    const done = await ask("POST", "reversals", { body: sent });
    made();
    const view = make("div", {},
      make("h3", { tabindex: "-1" }, "Done"),
      make("p", {}, done.applied ? `${extentText(done)} ` : "This reversal was made before. Nothing more was changed. ", "It is the reversal ", idText(done.reversalId), `, event ${wholeNumber.format(done.seq)}.`),
      ...(done.again ? [] : [make("div", { class: "actions" }, button("Take this reversal back…", () => openCorrections({ actionIds: done.reversalId })))]));
    shown.replaceChildren(view);
    view.querySelector("h3").focus();
    say(done.again ? "The actions count again." : "The actions are taken back.");
  });
  return make("div", { class: "panel" },
    make("h3", { tabindex: "-1" }, answer.again ? "This would let actions count again" : "This would take back"),
    make("p", {}, nothing ? "Nothing: no such action counts." : extentText(answer)),
    facts([["Reversal id", idText(sent.reversalId)], ["Reason", make("span", { dir: "auto" }, sent.reason)], ["Up to event", typeof sent.to === "number" ? wholeNumber.format(sent.to) : sent.to ?? ""]]),
    ...changesView(answer.changes),
    nothing ? "" : make("div", { class: "actions" }, button(`${verb}: ${count(answer.actions, "action")}`, apply, "danger")));
}

/** Shows what a reversal did. */
function lookUpForm() {
  const place = make("div", {});
  const found = make("div", {});
  const input = plainInput("reversalId", { required: true });
  const look = (pressed) => attempt(pressed, place, async () => {
    found.replaceChildren();
    const done = await ask("GET", "reversals", { query: { reversalId: input.value } });
    found.replaceChildren(
      facts([
        ["When", timeText(done.time)], ["By", idText(done.caller)], ["Reason", make("span", { dir: "auto" }, done.reason)],
        [done.again ? "Actions that count again" : "Actions taken back", wholeNumber.format(done.actions)], ["Still held back", done.again ? "" : wholeNumber.format(done.holding)],
      ]),
      ...done.changes.map((change) => table(`Board ${change.boardId}${change.endedSeq ? ", a past period" : ""}`, ["User", "Score after it"], change.users.slice(0, CHANGES_SHOWN_MAX).map((user) => [idText(user.userId), user.score ?? "none"]))),
      ...(done.again || !done.holding ? [] : [make("div", { class: "actions" }, button("Take it back…", () => openCorrections({ actionIds: done.reversalId })))]));
  });
  return make("details", {}, make("summary", {}, "Look up a reversal"),
    form(look, make("div", { class: "fields" }, field("Reversal id", input)), make("div", { class: "actions" }, make("button", { type: "submit" }, "Look it up"))), place, found);
}
