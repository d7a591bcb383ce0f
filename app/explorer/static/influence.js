/** Who did it: the units whose deletion changes a measurement most, each by itself. */

import { post } from "./api.js";
import { isWhole } from "./answer.js";
import { bar } from "./charts.js";
import { $, fill, h, show, table } from "./dom.js";
import { follower } from "./follower.js";
import { toggle } from "./selection.js";
import { change } from "./store.js";
import { count, decimalsFor, decimalsOf, label, percent, precisionOf, quoted, shown, signed, UNITS } from "./words.js";

const TOP = 10;
const NOTHING_MEASURED = "The units whose deletion changes a measurement most stand here, once there is one.";
const DISTRIBUTION = "A distribution isn’t one number: ask for a completion of one character instead.";

let selection = null;
let of = null; // the sketch and the versions whose units stand there, or are asked for
const ranking = follower({
  place: $("influences"), problem: $("influence-problem"),
  ask: (body, signal) => post("/attributions", body, { signal }),
  draw, clear: () => clear(""),
});

export function mount() {
  $("influence-measurement").addEventListener("change", (event) => change({ of: Number(event.target.value) }));
}

/** Forgets what was answered, as another key may be answered otherwise. */
export function forget() {
  ranking.forget();
  of = null;
  $("influence-of").hidden = true;
}

const isOf = (sketch, version) => of === null || (of.sketch === sketch && of.versions.includes(version));

/** Takes the units of another model out of reach, until it is known what there is to ask. */
export function expect({ sketch, version }) {
  const isOther = !isOf(sketch, version);
  $("influences").inert = isOther;
  if (isOther) ranking.giveUp();
}

/** Asks where the measurement is another one, and shows which of the units are deleted; there are known as many units. */
export async function follow(question, version, found, known = TOP) {
  selection = found;
  $("influences").inert = false;
  if (!isOf(question.sketch, version)) clear("");
  for (const box of $("influences").querySelectorAll("input")) box.checked = found.units.has(box.value);
  const numbers = question.measurements.filter((one) => one.kind !== "next_token" && isWhole(one));
  const chosen = Math.min(question.of, Math.max(0, numbers.length - 1));
  fill($("influence-measurement"), numbers.map((one, index) => [String(index), label(one)]), String(chosen));
  $("influence-of").hidden = false;
  const { sketch, confidence } = question;
  const body = sketch && numbers.length ? { sketch, version, measurement: numbers[chosen], top: Math.min(TOP, known), confidence } : null;
  if (!body) {
    forget();
    $("influence-hint").textContent = question.measurements.some((one) => one.kind === "next_token") ? DISTRIBUTION : NOTHING_MEASURED;
    return;
  }
  const versions = [question.version, version];
  if (of === null || !versions.every((one) => isOf(sketch, one))) of = { sketch, versions };
  await ranking.follow(body);
}

function clear(hint) {
  show($("influences"));
  show($("influence-problem"));
  $("influence-hint").textContent = hint;
}

function draw({ raising, lowering, baseline, estimator, measurement }, { confidence }) {
  const exact = estimator === "retrained";
  const all = [...raising, ...lowering];
  const precision = precisionOf([baseline, ...all.map((one) => one.estimate)]);
  const how = exact ? "The model was retrained without every unit: these are exact."
    : `Estimated from random directions, with ${percent(confidence)} intervals for all units at once.`;
  clear(`Each unit deleted by itself, in ${UNITS[measurement.kind]}. ${how}`);
  const scale = Math.max(...all.map((one) => Math.max(...one.interval.map((end) => Math.abs(end - baseline)))), 1e-12);
  const side = (those, verb, range) => influences(those, { baseline, verb, exact, precision, range: exact ? range : [-scale, scale] });
  show(
    $("influences"),
    h("h3", {}, "Without it, the measurement rises"), side(raising, "raises", [0, scale]),
    h("h3", {}, "Without it, the measurement falls"), side(lowering, "lowers", [-scale, 0]),
  );
}

function influences(those, { baseline, verb, exact, precision, range }) {
  if (!those.length) return h("p.hint", {}, `No unit’s deletion ${verb} it.`);
  const columns = [["Delete", "check"], ["Unit"], ["", "plot"], ["change", "number"], ...(exact ? [] : [["interval", "number"]])];
  const smallest = Math.min(...those.map((one) => Math.abs(one.change)));
  return table(`Units whose deletion ${verb} the measurement`, columns, those.map((one) => {
    const [low, high] = one.interval.map((end) => end - baseline);
    const decimals = Math.min(precision, exact ? Math.max(4, decimalsFor(smallest, 2)) : decimalsOf(low, high));
    const name = one.text === null ? one.unit : one.text;
    const whose = one.text === null ? "" : one.documents > 1 ? ` ${count(one.documents, "document")} of ` : " of ";
    return [
      h("input", { type: "checkbox", value: one.unit, checked: selection.units.has(one.unit),
        "aria-label": `Delete ${shown(name, 40)}`, onchange: (event) => toggle(one.unit, selection, event.target.checked) }),
      [quoted(name, 40), whose && !/^\d+$/.test(one.unit) && h("small", {}, whose, quoted(one.unit, 24))],
      bar({ value: one.change, low, high }, range),
      signed(one.change, decimals),
      ...(exact ? [] : [[signed(low, decimals), " … ", signed(high, decimals)]]),
    ];
  }));
}
