/** The question, by hand: which model, what to measure, what to delete. */

import * as catalog from "./catalog.js";
import { latest } from "./api.js";
import { $, enable, fill, h, isEnabled, pager, show, showProblem, sync, table, taken } from "./dom.js";
import { addRule, loneSubset, NOTHING, toggle } from "./selection.js";
import { change, question, tell } from "./store.js";
import { count, percent, quoted, shown } from "./words.js";

const LONGEST_TEXT = 4000;
const LONGEST_SEARCH = 200;
const PAGE = 12;
const TYPING = 150;
const SHOWN_CHIPS = 12;
const MOST_DEGREES = 4;
const CONFIDENCES = ["0.8", "0.9", "0.95", "0.99"];

/** Which configurations serve an estimator. */
const ESTIMATORS_OF = {
  regression: ({ axes }) => axes,
  axes: ({ axes }) => axes,
  pairs: ({ axes, pairs }) => axes && pairs,
  hybrid: ({ axes, directions }) => axes && directions,
  interpolation: ({ axes, directions }) => axes && directions,
  sphere: ({ directions }) => directions,
};

let followed = question(); // whose sketch and version the page shows
let known = null; // what the catalog says of them; null where it can't be read
let selection = NOTHING;
let search = { by: "contains", text: "", offset: 0 };
const searching = latest();

const typing = new Map(); // what is to be done once nobody types

/** Waits until nobody types for a moment. */
function patient(work) {
  return (...rest) => {
    clearTimeout(typing.get(work)?.timer);
    const done = () => {
      typing.delete(work);
      work(...rest);
    };
    typing.set(work, { timer: setTimeout(done, TYPING), done });
  };
}

/** Does it now, as rows are about to change their places. */
function finishTyping() {
  for (const { timer, done } of [...typing.values()]) {
    clearTimeout(timer);
    done();
  }
}

export function mount() {
  $("ask-form").addEventListener("submit", (event) => event.preventDefault());
  $("sketch-field").addEventListener("change", (event) =>
    change({ sketch: event.target.value.trim(), version: null, rules: [], added: [], kept: [] }),
  );
  $("version").addEventListener("change", (event) => change({ version: Number(event.target.value) || null }));
  const add = (measurement) => () => {
    finishTyping();
    change({ measurements: [...question().measurements, measurement] });
    $("measurements").querySelector("li:last-child input").focus();
  };
  $("add-loss").addEventListener("click", add({ kind: "loss", text: "" }));
  $("add-completion").addEventListener("click", add({ kind: "log_probability", prompt: "", completion: "" }));
  $("add-next").addEventListener("click", add({ kind: "next_token", prompt: "" }));
  $("confidence").addEventListener("change", (event) => change({ confidence: Number(event.target.value) }));
  $("estimator").addEventListener("change", (event) => change({ estimator: event.target.value }));
  $("degree").addEventListener("change", (event) => change({ degree: Number(event.target.value) || "auto" }));
  $("subset").addEventListener("change", (event) => {
    if (event.target.value) addRule("subset", event.target.value);
    event.target.value = "";
  });
  const look = patient(() => {
    search = { by: $("search-by").value, text: $("search").value, offset: 0 };
    void find();
  });
  $("search").addEventListener("input", look);
  $("search-by").addEventListener("change", look);
  $("add-unit").addEventListener("click", addNamed);
  $("unit").addEventListener("keydown", (event) => event.key === "Enter" && addNamed());
}

function addNamed() {
  const unit = $("unit").value.trim();
  if (!unit) return;
  if (unit.length > LONGEST_SEARCH) {
    showProblem($("delete-problem"), { sentences: [`No unit has a name of ${count(unit.length, "character")}.`] });
    return;
  }
  $("unit").value = "";
  toggle(unit, selection, true);
}

/** Shows what a question measures; what is of another model's data is out of reach until it is known what it is about. */
export function expect(asked) {
  showMeasurements(asked);
  const isSame = asked.sketch === followed.sketch && [followed.version, known?.row.number].includes(asked.version);
  $("delete").inert = followed.sketch !== "" && !isSame;
}

/** Shows a question, and what is known of its sketch. */
export function follow(asked, about, sketches, problem) {
  const [before, now] = [known?.dataset?.name, about?.dataset?.name];
  known = about?.dataset ? about : null;
  followed = asked;
  $("delete").inert = false;
  showProblem($("ask-problem"), problem, problem?.passes && tell);
  showModel(asked, sketches);
  showHow(asked);
  for (const row of ["search-row", "subset-row", "found"]) $(row).hidden = !known;
  $("unit-label").textContent = known ? "Or a unit by its name" : "A unit by its name";
  if (known) {
    const bySubject = $("search-by").querySelector("[value=subject]");
    bySubject.hidden = bySubject.disabled = !known.dataset.has_subjects;
    if (bySubject.hidden && $("search-by").value === "subject") $("search-by").value = "contains";
  }
  if (before !== now) { // what is found there, and what rules take there, is of another dataset
    selection = NOTHING;
    searching.stop();
    show($("found"));
  }
  if (known && before !== now) {
    if (before) $("search").value = "";
    search = { by: $("search-by").value, text: $("search").value, offset: 0 };
    void find();
  }
  showSubsets(asked);
}

/** The choices that the version leaves, and what is chosen, even where it isn't among them. */
function showHow({ confidence, estimator, degree }) {
  const { configuration } = known?.row ?? {};
  const estimators = Object.entries(ESTIMATORS_OF).filter(([, served]) => !configuration || served(configuration)).map(([name]) => name);
  const degrees = Array.from({ length: configuration?.degree ?? MOST_DEGREES }, (_, index) => String(index + 1));
  const choose = (id, names, chosen, words = (name) => name) =>
    fill($(id), [...new Set([...names, chosen])].map((name) => [name, words(name)]), chosen);
  choose("confidence", CONFIDENCES, String(confidence), (name) => percent(Number(name)));
  choose("estimator", ["auto", ...estimators], estimator, (name) => (name === "auto" ? "the best at similar sets" : name));
  choose("degree", ["auto", ...degrees], String(degree));
  if (estimator !== "auto" || degree !== "auto") $("how").open = true;
}

function showModel(asked, sketches) {
  chooseSketch("sketch", asked.sketch, sketches);
  chooseVersion("version", asked.version, known?.versions ?? []);
  show(
    $("model-hint"),
    known && [quoted(known.dataset.name, 40), `: ${count(known.dataset.document_count, "document")}, ` +
      `${count(known.dataset.unit_count, "unit")}${known.dataset.has_subjects ? ", one a subject" : ""}. `],
    known?.row.contains_erased && h("strong", {}, `Trained on ${count(known.row.erased_units, "unit")} erased since.`),
    asked.left > 0 && h("strong", {}, ` The address holds more than is asked: ${asked.left} measurements or rules were left out.`),
  );
}

/** Shows the sketches to choose from; a field where the catalog can't be read. Of the view of trust, too. */
export function chooseSketch(id, chosen, sketches) {
  const place = $(`${id}-field`);
  if (sketches === null) {
    if (!$(id).matches("input")) show(place, h("input", { id, spellcheck: "false" }));
    sync($(id), chosen);
    return;
  }
  if (!$(id).matches("select")) show(place, h("select", { id }));
  const names = [...new Set([chosen, ...sketches.map((one) => one.name)])].filter(Boolean);
  fill($(id), names.map((name) => [name, shown(name, 40)]), chosen);
}

/** Shows the versions to choose from, and the one that is chosen, even where there is no such. */
export function chooseVersion(id, chosen, versions) {
  const current = versions.find((one) => one.is_current);
  const numbers = versions.filter((one) => one.state !== "deleted").map((one) => String(one.number));
  const names = [...new Set(["", ...numbers, chosen === null ? "" : String(chosen)])];
  const retired = (name) => (versions.find((one) => String(one.number) === name)?.state === "retired" ? " (retired)" : "");
  const words = (name) => (name ? `version ${name}${retired(name)}` : current ? `current (${current.number})` : "current");
  fill($(id), names.map((name) => [name, words(name)]), String(chosen ?? ""));
}

function showMeasurements(asked) {
  const list = $("measurements");
  const kinds = asked.measurements.map((one) => one.kind).join();
  if (list.dataset.kinds !== kinds) {
    list.dataset.kinds = kinds;
    show(list, asked.measurements.map(measurementRow));
  }
  asked.measurements.forEach((measurement, index) => {
    const row = list.children[index];
    const inputs = [...row.querySelectorAll("input")];
    for (const input of inputs) {
      if (input.validationMessage && !measurement[input.name]) continue; // what is too long isn't asked, and stays there
      sync(input, measurement[input.name]);
      input.setCustomValidity("");
    }
    row.querySelector(".problem").hidden = inputs.every((input) => !input.validationMessage);
  });
  const most = Number(document.body.dataset.mostMeasurements);
  for (const id of ["add-loss", "add-completion", "add-next"]) $(id).disabled = asked.measurements.length >= most;
}

function measurementRow({ kind }, index) {
  const field = (name, words) => h("label.grow", {}, words, " ", h("input", { name, spellcheck: "false" }));
  const fields = {
    loss: () => [field("text", "Loss of")],
    log_probability: () => [field("prompt", "After"), field("completion", "the completion")],
    next_token: () => [field("prompt", "Character after")],
  }[kind]();
  const problem = h("p.problem", { role: "alert", hidden: true });
  const take = patient((row) => {
    if (!row.isConnected) return; // another question came before
    const measurement = { kind };
    problem.textContent = "";
    for (const input of row.querySelectorAll("input")) {
      const long = input.value.length > LONGEST_TEXT;
      if (long) {
        problem.textContent = `These are ${count(input.value.length, "character")}, and at most ` +
          `${LONGEST_TEXT.toLocaleString("en")} are taken: nothing is asked.`;
      }
      input.setCustomValidity(long ? problem.textContent : "");
      measurement[input.name] = long ? (input.dataset.said = "") : taken(input);
    }
    problem.hidden = !problem.textContent;
    change({ measurements: question().measurements.with(index, measurement) });
  });
  const remove = () => {
    finishTyping();
    change({ measurements: question().measurements.filter((_, other) => other !== index) });
    $("add-loss").focus();
  };
  return h(
    "li", {},
    h("div.row", { oninput: (event) => take(event.currentTarget) }, fields,
      h("button.remove", { type: "button", "aria-label": `Remove measurement ${index + 1}`, onclick: remove }, "×")),
    problem,
  );
}

function showSubsets(asked) {
  const taken = asked.rules.filter((rule) => rule.kind === "subset").map((rule) => rule.value);
  const subsets = (known?.dataset.subsets ?? []).filter((one) => !taken.includes(one.name));
  fill($("subset"), [["", subsets.length ? "choose" : "there is none"],
    ...subsets.map((one) => [one.name, `${one.name} (${count(one.unit_count, "unit")})`])], "");
}

/** Shows what is deleted: how much, and why. */
export async function select(found, signal) {
  selection = found;
  const asked = question();
  const { refusals } = found;
  const sentences = [...refusals.flatMap((refusal) => refusal.sentences), "Nothing is asked until that is taken back."];
  showProblem($("delete-problem"), refusals.length ? { sentences } : null, refusals.some((one) => one.passes) && tell);
  show($("chosen"), chips(asked));
  for (const box of $("found").querySelectorAll("input[type=checkbox]")) box.checked = found.units.has(box.value);
  const all = $("found").querySelector("button.all");
  if (all) enable(all, !isRule(asked, search));
  tellCount(found.units.size, known?.dataset.has_subjects ? null : found.units.size);
  if (!known?.dataset.has_subjects || !found.units.size || refusals.length) return;
  try {
    const { document_count: documents } = await catalog.deletes(known.dataset.name, { units: [...found.units] }, signal);
    if (!signal.aborted) tellCount(found.units.size, documents);
  } catch (refusal) {
    if (!signal.aborted) showProblem($("delete-problem"), refusal, tell);
  }
}

function tellCount(units, documents) {
  const lone = !known && loneSubset(question());
  const of = known ? ` of ${known.dataset.unit_count.toLocaleString("en")}` : "";
  const counted = documents === null || !known ? "" : `, ${count(documents, "document")}`;
  $("count").textContent = lone ? `The subset ${lone} is deleted.`
    : units ? `${count(units, "unit")}${of}${counted} deleted.` : "Nothing is deleted yet.";
}

const isRule = ({ rules }, { by, text }) => rules.some((rule) => rule.kind === by && rule.value === text);

const RULE_WORDS = { contains: "texts that contain ", matches: "texts that match ", subset: "the subset " };

function chips({ rules, added, kept }) {
  const chip = (words, text, rest) =>
    h("li", {}, words, quoted(text, 40),
      h("button.remove", { type: "button", "aria-label": `Take back: ${words}${shown(text, 40)}`, onclick: (event) => {
        const place = [...$("chosen").children].indexOf(event.target.closest("li"));
        change(rest());
        show($("chosen"), chips(question()));
        ($("chosen").children[place] ?? $("chosen").lastChild)?.querySelector("button")?.focus();
        if (!$("chosen").children.length) $("count").focus();
      } }, "×"));
  const without = (part, one) => () => ({ [part]: question()[part].filter((other) => JSON.stringify(other) !== JSON.stringify(one)) });
  const all = [
    ...rules.map((rule) => chip(RULE_WORDS[rule.kind], rule.value, without("rules", rule))),
    ...added.map((unit) => chip("unit ", unit, without("added", unit))),
    ...kept.map((unit) => chip("but not ", unit, without("kept", unit))),
  ];
  const more = all.length - SHOWN_CHIPS;
  if (all.length < 2) return all;
  const clear = h("li", {}, h("button.quiet", { type: "button", onclick: () => {
    change({ rules: [], added: [], kept: [] });
    $("count").focus();
  } }, "Take all back"));
  return [...all.slice(0, SHOWN_CHIPS), more > 0 && h("li", {}, `and ${more} more`), clear];
}

/** Lists what the search finds, to be deleted by a click. */
async function find() {
  if (!known) return;
  const { dataset } = known;
  const { by, text, offset } = search;
  const place = $("found");
  if (text.length > LONGEST_SEARCH) {
    searching.stop();
    show(place, h("p.problem", {}, `${count(text.length, "character")} are too many to search for: at most ${LONGEST_SEARCH}.`));
    return;
  }
  const filter = { limit: PAGE, offset, ...(text && { [by === "subject" ? "contains" : by]: text }) };
  const list = by === "subject" ? catalog.units : catalog.documents;
  try {
    const page = await searching((signal) => list(dataset.name, filter, signal));
    if (page) show(place, foundTable(dataset, page, by, text));
  } catch (refusal) {
    showProblem(place, refusal, () => void find());
  }
}

/** Forgets what was found, as another key may see something else. */
export function forget() {
  searching.stop();
  known = null;
  selection = NOTHING;
  show($("found"));
}

function foundTable({ has_subjects: hasSubjects }, page, by, text) {
  const noun = by === "subject" ? "subject" : "document";
  const words = text ? `${count(page.total, noun)} found.` : `${count(page.total, noun)} in all.`;
  const name = (item) => item.unit ?? item.name;
  const box = (item) => h("input", {
    type: "checkbox", value: name(item), checked: selection.units.has(name(item)),
    "aria-label": `Delete ${shown(item.text ?? item.name, 60)}`,
    onchange: (event) => toggle(name(item), selection, event.target.checked),
  });
  const columns = by === "subject"
    ? [["Delete", "check"], ["Subject"], ["Documents", "number"]]
    : [["Delete", "check"], ["Text"], [hasSubjects ? "Subject" : "Unit", "number"]];
  const rows = page.items.map((item) => by === "subject"
    ? [box(item), quoted(item.name, 60), item.document_count]
    : [box(item), quoted(item.text, 60), quoted(item.unit, 24)]);
  const all = h("button.quiet.all", { type: "button", onclick: () => isEnabled(all) && addRule(by, text) },
    `Delete all that ${by === "contains" ? "contain" : "match"} it`);
  enable(all, !isRule(question(), search));
  const turn = (offset) => {
    search = { ...search, offset };
    return find();
  };
  return [
    h("div.row", {}, h("p.hint.grow", { role: "status" }, words), text && by !== "subject" && page.total > 0 && all),
    page.items.length > 0 && table(`What can be deleted, ${noun} by ${noun}`, columns, rows),
    pager($("found"), page, PAGE, ["Before", "Next"], turn),
  ];
}
