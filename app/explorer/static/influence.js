/** Who did it: the units whose deletion changes a measurement most, each by itself. */

import { latest, post } from "./api.js";
import { isWhole } from "./answer.js";
import { bar } from "./charts.js";
import { $, fill, h, show, showProblem, table } from "./dom.js";
import { toggle } from "./selection.js";
import { count, decimalsOf, label, percent, quoted, shown, signed, UNITS } from "./words.js";

const TOP = 10;
const EXACT_WIDTH = 1e-4; // what is narrower is known to all decimals that are shown
const asking = latest();

let selection = null;
let asked = "";
let chosen = 0; // which of the measurements that are one number
let again = () => undefined;

export function mount() {
  $("influence-measurement").addEventListener("change", (event) => {
    chosen = Number(event.target.value);
    again();
  });
}

/** Forgets what was answered, as another key may be answered otherwise. */
export function forget() {
  asked = "";
}

/** Asks where the measurement is another one, and shows which of the units are deleted; known are as many units. */
export async function follow(question, found, known = TOP) {
  selection = found;
  again = () => void follow(question, selection, known);
  for (const box of $("influences").querySelectorAll("input")) box.checked = found.units.has(box.value);
  const numbers = question.measurements.filter((one) => one.kind !== "next_token" && isWhole(one));
  chosen = Math.min(chosen, Math.max(0, numbers.length - 1));
  fill($("influence-measurement"), numbers.map((one, index) => [String(index), label(one)]), String(chosen));
  $("influence-of").hidden = numbers.length === 0;
  const { sketch, version, confidence } = question;
  const body = sketch && numbers.length ? { sketch, version, measurement: numbers[chosen], top: Math.min(TOP, known), confidence } : null;
  const text = JSON.stringify(body);
  if (text === asked) return;
  asked = text;
  if (!body) {
    void asking(async () => undefined);
    clear(question.measurements.some((one) => one.kind === "next_token")
      ? "A distribution isn’t one number: ask for a completion of one character instead."
      : "The units whose deletion changes a measurement most stand here, once there is one.");
    return;
  }
  try {
    const answer = await asking((signal) => post("/attributions", body, { signal }));
    if (answer) draw(answer, confidence);
  } catch (refusal) {
    clear("");
    showProblem($("influence-problem"), refusal);
  }
}

function clear(hint) {
  show($("influences"));
  show($("influence-problem"));
  $("influence-hint").textContent = hint;
}

const EXACT = "The model was retrained without every unit, so these are exact.";
const ESTIMATED = "Estimated from random directions.";

function draw({ raising, lowering, baseline, estimator, measurement }, confidence) {
  clear(`Each unit deleted by itself, in ${UNITS[measurement.kind]}. ${estimator === "retrained" ? EXACT
    : `${ESTIMATED} ${percent(confidence)} intervals, for all units at once.`}`);
  const all = [...raising, ...lowering];
  const scale = Math.max(...all.map((one) => Math.max(...one.interval.map((end) => Math.abs(end - baseline)))), 1e-12);
  show(
    $("influences"),
    h("h3", {}, "Without it, the measurement rises"), side(raising, baseline, [0, scale], "raises"),
    h("h3", {}, "Without it, the measurement falls"), side(lowering, baseline, [-scale, 0], "lowers"),
  );
}

function side(units, baseline, range, verb) {
  if (!units.length) return h("p.hint", {}, `No unit’s deletion ${verb} it.`);
  const exact = units.every((one) => one.interval[1] - one.interval[0] < EXACT_WIDTH);
  const columns = [["Delete", "check"], ["Unit"], ["", "plot"], ["change", "number"], ...(exact ? [] : [["interval", "number"]])];
  return table(`Units whose deletion ${verb} the measurement`, columns, units.map((one) => {
    const [low, high] = one.interval.map((end) => end - baseline);
    const decimals = exact ? 4 : decimalsOf(low, high);
    const name = one.text === null ? one.unit : one.text;
    return [
      h("input", { type: "checkbox", value: one.unit, checked: selection.units.has(one.unit),
        "aria-label": `Delete ${shown(name, 40)}`, onchange: () => toggle(one.unit, selection) }),
      [quoted(name, 40), one.documents > 1 ? h("small", {}, ` ${count(one.documents, "document")} of `, quoted(one.unit, 24)) : null],
      bar({ value: one.change, low, high }, range),
      signed(one.change, decimals),
      ...(exact ? [] : [[signed(low, decimals), " … ", signed(high, decimals)]]),
    ];
  }));
}
