/** The question, by hand: which model, what to measure, what to delete. */

import * as catalog from "./catalog.js";
import { latest } from "./api.js";
import { $, fill, h, show, showProblem, table } from "./dom.js";
import { addRule, toggle } from "./selection.js";
import { change, question } from "./store.js";
import { count, quoted, shown } from "./words.js";

const LONGEST_TEXT = 4000;
const LONGEST_SEARCH = 200;
const PAGE = 12;
const TYPING = 150;
const SHOWN_CHIPS = 12;

let known = null; // what the catalog says of the sketch; null where it can't be read
let selection = null;
let search = { by: "contains", text: "", offset: 0 };
const searching = latest();

/** Waits until nobody types for a moment. */
function patient(work) {
  let timer;
  return (...rest) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...rest), TYPING);
  };
}

export function mount() {
  $("ask-form").addEventListener("submit", (event) => event.preventDefault());
  $("sketch-field").addEventListener("change", (event) =>
    change({ sketch: event.target.value.trim(), version: null, rules: [], added: [], kept: [] }),
  );
  $("version").addEventListener("change", (event) => change({ version: Number(event.target.value) || null }));
  const add = (measurement) => () => {
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
  if (!selection.units.has(unit)) toggle(unit, selection);
}

/** Shows a question, and what is known of its sketch. */
export function follow(asked, about, sketches, problem) {
  const [before, now] = [known?.dataset.name, about?.dataset.name];
  known = about;
  showProblem($("ask-problem"), problem);
  showModel(asked, sketches);
  showMeasurements(asked);
  $("confidence").value = String(asked.confidence);
  if (!$("confidence").value) {
    $("confidence").append(h("option", { value: asked.confidence, selected: true }, `${100 * asked.confidence}%`));
  }
  $("estimator").value = asked.estimator;
  $("degree").value = String(asked.degree);
  if (asked.estimator !== "auto" || asked.degree !== "auto") $("how").open = true;
  for (const row of ["search-row", "subset-row", "found"]) $(row).hidden = !known;
  $("unit-label").textContent = known ? "Or a unit by its name" : "A unit by its name";
  if (known) {
    const bySubject = $("search-by").querySelector("[value=subject]");
    bySubject.hidden = bySubject.disabled = !known.dataset.has_subjects;
    if (bySubject.hidden && $("search-by").value === "subject") $("search-by").value = "contains";
  }
  if (known && before !== now) {
    if (before) $("search").value = ""; // that was of another dataset
    search = { by: $("search-by").value, text: $("search").value, offset: 0 };
    void find();
  }
  showSubsets(asked);
}

function showModel(asked, sketches) {
  if (sketches === null) {
    if (!$("sketch").matches("input")) show($("sketch-field"), h("input", { id: "sketch", spellcheck: "false" }));
    if (document.activeElement !== $("sketch")) $("sketch").value = asked.sketch;
  } else {
    if (!$("sketch").matches("select")) show($("sketch-field"), h("select", { id: "sketch" }));
    const names = sketches.map((one) => one.name);
    if (asked.sketch && !names.includes(asked.sketch)) names.unshift(asked.sketch);
    fill($("sketch"), names.map((name) => [name, name]), asked.sketch);
  }
  const versions = known?.versions ?? [];
  const current = versions.find((one) => one.is_current);
  const options = versions.filter((one) => one.state === "ready").map((one) => [String(one.number), `version ${one.number}`]);
  fill($("version"), [["", current ? `current (${current.number})` : "current"], ...options], String(asked.version ?? ""));
  if (asked.version !== null && !options.some(([value]) => value === String(asked.version))) {
    $("version").append(h("option", { value: asked.version, selected: true }, `version ${asked.version}`));
  }
  const row = versions.find((one) => (asked.version === null ? one.is_current : one.number === asked.version));
  show(
    $("model-hint"),
    known && `${known.dataset.name}: ${count(known.dataset.document_count, "document")}, ` +
      `${count(known.dataset.unit_count, "unit")}${known.dataset.has_subjects ? ", one a subject" : ""}. `,
    row?.contains_erased && h("strong", {}, `Trained on ${count(row.erased_units, "unit")} erased since.`),
  );
}

function showMeasurements(asked) {
  const list = $("measurements");
  const kinds = asked.measurements.map((one) => one.kind).join();
  if (list.dataset.kinds !== kinds) {
    list.dataset.kinds = kinds;
    show(list, asked.measurements.map(measurementRow));
  }
  asked.measurements.forEach((measurement, index) => {
    for (const input of list.children[index].querySelectorAll("input")) {
      if (input !== document.activeElement && !input.validationMessage) input.value = measurement[input.name];
    }
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
    const measurement = { kind };
    problem.textContent = "";
    for (const input of row.querySelectorAll("input")) {
      const long = input.value.length > LONGEST_TEXT;
      if (long) {
        problem.textContent = `These are ${count(input.value.length, "character")}, and at most ` +
          `${LONGEST_TEXT.toLocaleString("en")} are taken: nothing is asked.`;
      }
      input.setCustomValidity(long ? problem.textContent : "");
      measurement[input.name] = long ? "" : input.value;
    }
    problem.hidden = !problem.textContent;
    change({ measurements: question().measurements.with(index, measurement) });
  });
  const remove = () => {
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
  const subsets = (known?.subsets ?? []).filter((one) => !taken.includes(one.name));
  fill($("subset"), [["", subsets.length ? "choose" : "there is none"],
    ...subsets.map((one) => [one.name, `${one.name} (${count(one.unit_count, "unit")})`])], "");
}

/** Shows what is deleted: how much, and why. */
export function select(found, problem) {
  selection = found;
  const asked = question();
  showProblem($("delete-problem"), problem);
  const all = known?.dataset.unit_count;
  const { units, documents } = found;
  const of = all ? ` of ${all.toLocaleString("en")}` : "";
  const counted = documents === null ? "" : `, ${count(documents, "document")}`;
  $("count").textContent = units.size ? `${count(units.size, "unit")}${of}${counted} deleted.` : "Nothing is deleted yet.";
  show($("chosen"), chips(asked));
  for (const box of $("found").querySelectorAll("input[type=checkbox]")) box.checked = units.has(box.value);
  const all_ = $("found").querySelector("button.all");
  if (all_) all_.disabled = asked.rules.some((rule) => rule.kind === search.by && rule.value === search.text);
}

const RULE_WORDS = { contains: "texts that contain ", matches: "texts that match ", subset: "the subset " };

function chips({ rules, added, kept }) {
  const chip = (words, text, without) =>
    h("li", {}, words, quoted(text, 40),
      h("button.remove", { type: "button", "aria-label": `Take back: ${words}${shown(text, 40)}`, onclick: () => {
        change(without());
        $("search").focus();
      } }, "×"));
  const but = (list, one) => list.filter((other) => other !== one);
  const all = [
    ...rules.map((rule) => chip(RULE_WORDS[rule.kind], rule.value, () => ({ rules: but(rules, rule) }))),
    ...added.map((unit) => chip("unit ", unit, () => ({ added: but(added, unit) }))),
    ...kept.map((unit) => chip("but not ", unit, () => ({ kept: but(kept, unit) }))),
  ];
  const more = all.length - SHOWN_CHIPS;
  if (all.length < 2) return all;
  const clear = h("li", {}, h("button.quiet", { type: "button", onclick: () => {
    change({ rules: [], added: [], kept: [] });
    $("search").focus();
  } }, "Take all back"));
  return [...all.slice(0, SHOWN_CHIPS), more > 0 && h("li", {}, `and ${more} more`), clear];
}

/** Lists what the search finds, to be deleted by a click. */
async function find() {
  if (!known) return;
  const { by, text, offset } = search;
  const place = $("found");
  if (text.length > LONGEST_SEARCH) {
    show(place, h("p.problem", {}, `${count(text.length, "character")} are too many to search for: at most ${LONGEST_SEARCH}.`));
    return;
  }
  const filter = { limit: PAGE, offset, ...(text && { [by === "subject" ? "contains" : by]: text }) };
  const list = by === "subject" ? catalog.units : catalog.documents;
  try {
    const page = await searching((signal) => list(known.dataset.name, filter, signal));
    if (page) show(place, foundTable(page, by, text));
  } catch (refusal) {
    showProblem(place, refusal);
  }
}

function foundTable(page, by, text) {
  const noun = by === "subject" ? "subject" : "document";
  const words = text ? `${count(page.total, noun)} found.` : `${count(page.total, noun)} in all.`;
  const to = (offset) => {
    search = { ...search, offset };
    void find();
  };
  const name = (item) => item.unit ?? item.name;
  const box = (item) => h("input", {
    type: "checkbox", value: name(item), "aria-label": `Delete ${shown(item.text ?? item.name, 60)}`,
    onchange: () => toggle(name(item), selection),
  });
  const columns = by === "subject"
    ? [["Delete", "check"], ["Subject"], ["Documents", "number"]]
    : [["Delete", "check"], ["Text"], [known.dataset.has_subjects ? "Subject" : "Unit", "number"]];
  const rows = page.items.map((item) => by === "subject"
    ? [box(item), quoted(item.name, 60), item.document_count]
    : [box(item), quoted(item.text, 60), quoted(item.unit, 24)]);
  const found = [
    h("div.row", {},
      h("p.hint.grow", { role: "status" }, words),
      text && by !== "subject" && page.total > 0 && h("button.quiet.all", {
        type: "button", onclick: () => addRule(by, text),
        disabled: question().rules.some((rule) => rule.kind === by && rule.value === text),
      }, `Delete all that ${by === "contains" ? "contain" : "match"} it`),
    ),
    page.items.length > 0 && table(`What can be deleted, ${noun} by ${noun}`, columns, rows),
    page.total > PAGE && h("div.row.pager", {},
      h("button.quiet", { type: "button", disabled: page.offset === 0, onclick: () => to(Math.max(0, page.offset - PAGE)) }, "Before"),
      h("span.hint", {}, `${page.offset + 1} to ${page.offset + page.items.length} of ${page.total.toLocaleString("en")}`),
      h("button.quiet", { type: "button", disabled: page.offset + PAGE >= page.total, onclick: () => to(page.offset + PAGE) }, "Next"),
    ),
  ];
  if (selection) for (const one of found[1] ? found[1].querySelectorAll("input") : []) one.checked = selection.units.has(one.value);
  return found;
}
