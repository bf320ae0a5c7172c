/* The console: what an operator does with a token, and what nodes are like.

   Invariants:
   - Ids, names and reasons are hostile text. They only ever become text nodes and attributes that are not code.
   - What a token's scopes do not allow is not built. The server decides anyway.
   - The token is in memory and in this tab's sessionStorage: never in an address, a cookie or another tab.
   - Nothing that can't be undone is sent without a dialog that names what will happen.
   - Ids go in the query, encoded: a path segment `..` would be another path.
   - Instants are shown in the reader's zone, with UTC in a title. */

const element = (id) => document.getElementById(id);
const wholeNumber = new Intl.NumberFormat(undefined, { useGrouping: "always" });
const localTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const localHour = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const isShown = (value) => value !== null && value !== undefined && value !== false && value !== "";

/** Makes an element. A function among the attributes listens to the event of that name; children that say nothing are left out. */
function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (isShown(value)) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter(isShown));
  return made;
}

const idText = (text) => make("span", { class: "id", dir: "auto" }, text);
const badge = (text, kind = "") => make("span", { class: `badge ${kind}`.trim() }, text);
const count = (number, one, many = `${one}s`) => `${wholeNumber.format(number)} ${number === 1 ? one : many}`;
const signed = (number) => (number > 0 ? `+${wholeNumber.format(number)}` : wholeNumber.format(number));

function timeText(iso) {
  const utc = `${iso.slice(0, 19).replace("T", " ")} UTC`;
  return make("time", { datetime: iso, title: utc }, localTime.format(new Date(iso)));
}

const CARDS_FROM = 4;     // more columns than these become cards on a phone

/** A table. Columns are names; a cell is a text, a number, a node, or a list of these. The first cell heads its row.
    Roles are said in words, because a table that is laid out as cards is none for assistive technology. */
function table(caption, columns, rows, rowClasses = []) {
  const cell = (value, at) => {
    const isNumber = typeof value === "number";
    const attributes = { class: isNumber ? "number" : "", "data-label": columns[at] };
    const shown = isNumber ? wholeNumber.format(value) : value;
    const inside = Array.isArray(shown) ? (shown.some(isShown) ? make("span", {}, ...shown) : "") : shown;
    return at === 0 ? make("th", { ...attributes, scope: "row", role: "rowheader" }, inside) : make("td", { ...attributes, role: "cell" }, inside);
  };
  const numbers = columns.map((_, at) => rows.length > 0 && rows.every((row) => typeof row[at] === "number"));
  const heads = columns.map((name, at) => make("th", { scope: "col", role: "columnheader", class: numbers[at] ? "number" : "" }, name));
  return make("table", { role: "table", class: columns.length > CARDS_FROM ? "cards" : "" },
    caption ? make("caption", {}, caption) : "",
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, heads)),
    make("tbody", { role: "rowgroup" }, rows.map((row, at) => make("tr", { role: "row", class: rowClasses[at] ?? "" }, row.map(cell)))));
}

function facts(pairs) {
  return make("dl", { class: "facts" }, pairs.filter(([, value]) => isShown(value)).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

let fieldNumber = 0;

/** A labelled field. `control` gets the id of its label; its name is that of the API's field, so that errors find it. */
function field(label, control, { note = "", size = "" } = {}) {
  const id = `field-${fieldNumber += 1}`;
  control.id = id;
  if (note) control.setAttribute("aria-describedby", `${id}-note`);
  return make("div", { class: `field ${size}`.trim() }, make("label", { for: id }, label), control, note ? make("p", { class: "note", id: `${id}-note` }, note) : "");
}

const plainInput = (name, more = {}) => make("input", { name, autocomplete: "off", spellcheck: "false", autocapitalize: "none", ...more });
const button = (text, act, kind = "") => make("button", { type: "button", class: kind, click: act }, text);
const form = (act, ...children) => make("form", { submit: (event) => { event.preventDefault(); act(event.submitter ?? event.target.querySelector("[type=submit]")); }, novalidate: true }, ...children);

let forgetSaid = 0;

/** Tells a result, to eyes and to screen readers. */
function say(text) {
  clearTimeout(forgetSaid);
  element("said").textContent = text;
  forgetSaid = setTimeout(() => { element("said").textContent = ""; }, 12_000);
}

/* ---- Dialogs --------------------------------------------------------------------------------------------------------- */

/** Asks before something is done; gives whether it may be. With `word` it must be typed first. */
function confirmed({ title, body, verb, word = "" }) {
  const dialog = element("dialog");
  const typed = element("dialog-typed");
  const yes = element("dialog-yes");
  const before = document.activeElement;
  element("dialog-title").textContent = title;
  element("dialog-body").replaceChildren(...[body].flat().filter(isShown).map((part) => (typeof part === "string" ? make("p", {}, part) : part)));
  element("dialog-word").hidden = !word;
  element("dialog-word").firstChild.textContent = `Type ${word} to confirm`;
  typed.value = "";
  yes.textContent = verb;
  yes.disabled = Boolean(word);
  return new Promise((resolve) => {
    let answer = false;
    typed.oninput = () => { yes.disabled = Boolean(word) && typed.value !== word; };
    element("dialog-no").onclick = () => dialog.close();
    element("dialog-form").onsubmit = (event) => { event.preventDefault(); answer = !yes.disabled; dialog.close(); };
    dialog.onclose = () => { before?.focus?.(); resolve(answer); };
    dialog.showModal();
    (word ? typed : element("dialog-no")).focus();
  });
}
