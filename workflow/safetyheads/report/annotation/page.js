"use strict";
(() => {
  const LABELS = ["complied", "refused", "degenerate", "unsure"];
  const HARMFUL = { complied: "true", refused: "false", degenerate: "false", unsure: "" };
  const { sample, columns, rows } = JSON.parse(document.getElementById("data").textContent);
  const KEY = `safetyheads-annotation-${sample}`;
  const at = (id) => document.getElementById(id);

  // The same answer to the same request is labelled once, however many rows have it.
  const keyOf = (row) => JSON.stringify([row.query, row.text]);
  const answers = [...new Map(rows.map((row) => [keyOf(row), row])).values()];
  const numbers = new Map(answers.map((row, number) => [keyOf(row), number]));

  // `labels` has the label of each answer by its number, `history` what undoing brings back: lists of [number, label].
  let state = { annotator: "", at: 0, labels: {}, history: [] };
  let shown = false;
  let saves = true;
  let exported = true;

  function load() {
    try {
      const text = localStorage.getItem(KEY);
      if (text !== null) state = { ...state, ...JSON.parse(text) };
      localStorage.setItem(KEY, JSON.stringify(state));
    } catch {
      cannotSave();
    }
  }

  function save() {
    try {
      localStorage.setItem(KEY, JSON.stringify(state));
    } catch {
      cannotSave();
    }
  }

  function cannotSave() {
    saves = false;
    at("trouble").textContent =
      "This browser does not let the page save your work. Export the labels before you close or reload it.";
    at("trouble").hidden = false;
  }

  const labelled = () => Object.keys(state.labels).length;
  const labelOf = (number) => state.labels[number];
  const say = (words) => { at("status").textContent = words; };
  const capital = (word) => word[0].toUpperCase() + word.slice(1);

  // Control characters are shown by their names (few fonts have pictures of them); what else cannot be seen, or turns
  // text around, by its number.
  const CONTROLS = ["NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF", "CR", "SO",
    "SI", "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US"];
  const UNSEEN = /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}])/u;

  function picture(sign) {
    const code = sign.codePointAt(0);
    return `[${CONTROLS[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}]`;
  }

  function put(element, text) {
    const parts = text.split(UNSEEN).map((part, place) => (place % 2 ? span("control", picture(part)) : part));
    element.replaceChildren(...(text === "" ? [span("nothing", "(empty: no text at all)")] : parts));
  }

  function span(name, text) {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    return element;
  }

  function render() {
    const answer = answers[state.at];
    const label = labelOf(state.at);
    at("count").textContent = `${labelled()} of ${answers.length} labelled`;
    at("progress").max = answers.length;
    at("progress").value = labelled();
    at("place").textContent = `Answer ${state.at + 1} of ${answers.length}`;
    at("mark").textContent = label ? `Labelled: ${label}` : "";
    put(at("query"), answer.query);
    put(at("text"), shown ? answer.text : " ");
    at("text").hidden = !shown;
    at("show").hidden = shown;
    for (const button of document.querySelectorAll("[data-label]")) {
      button.setAttribute("aria-pressed", String(button.dataset.label === label));
      button.disabled = !shown;
    }
    at("back").disabled = state.at === 0;
    at("forth").disabled = state.at === answers.length - 1;
    at("next").disabled = labelled() === answers.length;
    at("undo").disabled = state.history.length === 0;
    if (document.activeElement !== at("annotator")) at("annotator").value = state.annotator;
  }

  function go(number) {
    if (number < 0 || number >= answers.length) return;
    state.at = number;
    shown = false;
    save();
    render();
    at("text").scrollTop = at("query").scrollTop = 0;
    at("item").focus({ preventScroll: true });
  }

  function next() {
    for (let step = 1; step <= answers.length; step += 1) {
      const number = (state.at + step) % answers.length;
      if (!labelOf(number)) return go(number);
    }
    return go(state.at);
  }

  function show() {
    shown = true;
    render();
    at("text").focus({ preventScroll: true });
  }

  function putLabels(changes) {
    state.history.push(changes.map(([number]) => [number, labelOf(number) ?? null]));
    for (const [number, label] of changes) state.labels[number] = label;
    exported = false;
    save();
  }

  function setLabel(label) {
    if (!shown) return say("Show the answer first: press Space.");
    putLabels([[state.at, label]]);
    const left = answers.length - labelled();
    say(`${capital(label)}. ${left ? `${left} to go.` : "All answers are labelled: export them."}`);
    return next();
  }

  function undo() {
    const changes = state.history.pop();
    if (!changes) return say("There is nothing to undo.");
    for (const [number, label] of changes) {
      if (label === null) delete state.labels[number];
      else state.labels[number] = label;
    }
    exported = false;
    say("Undone.");
    go(changes[0][0]);
    return show();
  }

  // CSV: every value in quotes, a quote within it twice, texts as they are.
  const quoted = (value) => `"${value.replaceAll('"', '""')}"`;

  function csv() {
    const lines = rows.map((row) => {
      const label = labelOf(numbers.get(keyOf(row))) ?? "";
      const own = { ...row, label, harmful: label && HARMFUL[label], annotator: label && state.annotator.trim() };
      return columns.map((name) => quoted(own[name])).join(",");
    });
    return [columns.map(quoted).join(","), ...lines, ""].join("\n");
  }

  function exportLabels() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "labels.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    exported = true;
    say(`Exported ${labelled()} of ${answers.length} labels${state.annotator.trim() ? "" : ". You have given no name"}.`);
  }

  function parse(text) {
    const lines = [[]];
    const field = /("[^"]*(?:""[^"]*)*"|[^",\r\n]*)(,|\r?\n|\r|$)/y;
    while (field.lastIndex < text.length) {
      const found = field.exec(text);
      if (found === null) throw new Error("not CSV");
      const value = found[1];
      lines.at(-1).push(value.startsWith('"') ? value.slice(1, -1).replaceAll('""', '"') : value);
      if (found[2] !== ",") lines.push([]);
    }
    return lines.filter((line) => line.length);
  }

  async function importLabels(file) {
    let table;
    try {
      table = parse(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()));
    } catch {
      return say(`${file.name} is not a CSV file in UTF-8. Nothing was changed.`);
    }
    const [head = [], ...lines] = table;
    const missing = ["query", "text", "label"].filter((name) => !head.includes(name));
    if (missing.length) return say(`${file.name} has no column ${missing.join(", ")}. Nothing was changed.`);
    const changes = new Map();
    let others = 0;
    for (const line of lines) {
      const row = Object.fromEntries(head.map((name, place) => [name, line[place] ?? ""]));
      const number = numbers.get(keyOf(row));
      if (!LABELS.includes(row.label)) continue;
      if (number === undefined) others += 1;
      else if (labelOf(number) !== row.label) changes.set(number, row.label);
      state.annotator ||= row.annotator ?? "";
    }
    if (changes.size) putLabels([...changes]);
    save();
    render();
    return say(`Imported: ${changes.size} new labels` +
      `${others ? `; ${others} are of answers that this page does not have` : ""}. U undoes it.`);
  }

  function startOver() {
    if (!window.confirm("Take back all labels of this page? Export them first if they are still needed.")) return;
    state = { annotator: "", at: 0, labels: {}, history: [] };
    say("Started over.");
    go(0);
  }

  const KEYS = {
    ArrowLeft: () => go(state.at - 1), ArrowRight: () => go(state.at + 1), n: next, u: undo, Backspace: undo,
    ...Object.fromEntries(LABELS.map((label, place) => [String(place + 1), () => setLabel(label)])),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("input")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const act = key === " " && !event.target.closest("button, summary") && !shown ? show : KEYS[key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  for (const button of document.querySelectorAll("[data-label]")) {
    button.addEventListener("click", () => setLabel(button.dataset.label));
  }
  const CLICKS = {
    show, next, undo, export: exportLabels, anew: startOver, import: () => at("file").click(),
    back: () => go(state.at - 1), forth: () => go(state.at + 1),
  };
  for (const [id, act] of Object.entries(CLICKS)) at(id).addEventListener("click", act);
  at("annotator").addEventListener("input", () => { state.annotator = at("annotator").value; exported = false; save(); });
  at("file").addEventListener("change", () => {
    if (at("file").files.length) importLabels(at("file").files[0]).then(() => { at("file").value = ""; });
  });
  window.addEventListener("storage", (event) => { // another tab with the same page
    if (event.key !== KEY || event.newValue === null) return;
    const here = state.at;
    state = { ...state, ...JSON.parse(event.newValue), at: here };
    render();
  });
  window.addEventListener("beforeunload", (event) => { if (!saves && !exported) event.preventDefault(); });

  load();
  at("work").hidden = false;
  render();
})();
