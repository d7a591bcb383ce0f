/** How far a version may be trusted: what it is, and how right it was wherever the model was really retrained. */

import * as catalog from "./catalog.js";
import { chooseSketch, chooseVersion } from "./ask.js";
import { get, latest, post } from "./api.js";
import { againstTruth, bar, norms } from "./charts.js";
import { $, h, show, showProblem, sync, table, taken } from "./dom.js";
import { change, tell } from "./store.js";
import { bytes, capital, count, decimalsOf, figures, label, moment, number, percent, quoted, seconds, shown, UNITS } from "./words.js";

const VERIFIED = 200; // of the newest verifications are looked through
const SHOWN = 12;
const EXACT_WIDTH = 1e-4; // of intervals: such answers were of retrained models, and can't miss
const [reading, looking] = [latest(), latest()];
let asked = "";

export function mount() {
  $("trust-sketch-field").addEventListener("change", (event) =>
    change({ sketch: event.target.value.trim(), version: null, rules: [], added: [], kept: [] }));
  $("trust-version").addEventListener("change", (event) => change({ version: Number(event.target.value) || null }));
  $("trust-form").addEventListener("submit", (event) => {
    event.preventDefault();
    asked = "";
    change({ calibrated: taken($("trust-text")) });
  });
}

export function forget() {
  reading.stop();
  looking.stop();
  asked = "";
  clear();
}

function clear() {
  for (const id of ["facts", "calibration", "sizes", "norms", "verified"]) show($(id));
}

/** Which measurement is calibrated: the one that is typed here, or else the first of the question that is a number. */
function measurementOf({ calibrated, measurements }) {
  if (calibrated) return { kind: "loss", text: calibrated };
  return measurements.find((one) => (one.kind === "loss" ? one.text : one.completion)) ?? null;
}

export async function follow(question, known, sketches, problem) {
  showProblem($("trust-problem"), problem, problem?.passes && tell);
  chooseSketch("trust-sketch", question.sketch, sketches);
  chooseVersion("trust-version", question.version, known?.versions ?? []);
  const measurement = measurementOf(question);
  sync($("trust-text"), measurement?.kind === "loss" ? measurement.text : "");
  const version = known?.row?.number ?? question.version;
  const wanted = JSON.stringify([question.sketch, version, measurement, question.confidence]);
  const again = wanted === asked;
  asked = wanted;
  if (!question.sketch || (problem && sketches !== null)) {
    forget();
    return;
  }
  if (!again) clear();
  void looking((signal) => part("verified", signal, () => verified(question.sketch, version, signal))); // there may be more by now
  if (again) return; // it stands there, or is under way
  await reading((signal) => Promise.all([
    part("facts", signal, () => (known?.row ? facts(known) : h("p.hint", {}, "What it is can be read with a key of the scope catalog:read."))),
    calibration(question, version, measurement, signal),
  ]));
}

/** Shows what a part of the page says, or why it can't. */
async function part(id, signal, work) {
  try {
    const children = await work();
    if (!signal.aborted) show($(id), children);
  } catch (refusal) {
    if (signal.aborted) return;
    asked = "";
    showProblem($(id), refusal, tell);
  }
}

function list(rows) {
  return h("dl", {}, rows.filter(Boolean).map(([name, ...what]) => [h("dt", {}, name), h("dd", {}, what)]));
}

async function facts({ row, dataset }) {
  const { configuration, contains_erased: erased, erased_units: gone } = row;
  const built = await catalog.build(row.sketch, row.number).catch((refusal) => {
    if (!refusal.sentences || refusal.passes) throw refusal;
    return refusal;
  });
  const of = built.document_count === undefined ? "" : `; ${count(built.document_count, "document")}, ${count(built.unit_count, "unit")}`;
  const own = [
    ["Version", `${row.sketch} ${row.number}, ${row.state}${row.is_current ? ", current" : ""}`],
    ["Registered", moment(row.created_at)],
    ["Erased data", erased ? h("strong.warning", {}, `trained on ${count(gone, "unit")} erased since`) : "none that it was trained on"],
    ["Trained on", quoted(dataset.name), dataset.description ? [": ", quoted(dataset.description)] : "", of],
    ["Size", bytes(row.size_bytes)],
    ["Checksum", h("code", {}, row.checksum)],
  ];
  if (built.sentences) return [list(own), ...built.sentences.map((sentence) => h("p.problem", {}, sentence))];
  return list([
    ...own,
    ["Model", `${count(built.parameter_count, "parameter")}, ${count(built.step_count, "training step")}`],
    ["Sketched along", `${count(built.directions, "random direction")} (${configuration.ensemble ?? "none"})` +
      `${built.axes ? " and every unit alone" : ""}, to degree ${built.degree}`],
    ["Retrained", count(built.retrained_count, "model")],
    ["Cost", `${seconds(built.build_seconds)} on ${built.device}${built.native ? ", native code" : ""}`],
    ["Built", moment(built.created_at)],
    ["Data", h("code", {}, built.fingerprint)],
    ["By", Object.entries(built.libraries).map(([name, version]) => `${name} ${version}`).join(", ")],
  ]);
}

async function calibration(question, version, measurement, signal) {
  if (!measurement) {
    show($("calibration"), h("p.hint", {}, "Type a text above: calibration is of a measurement."));
    return;
  }
  show($("calibration"), h("p.hint", {}, "Comparing with the models that were retrained …"));
  const body = { sketch: question.sketch, version, measurement, confidence: question.confidence };
  try {
    const answer = await post("/calibration", body, { signal });
    if (signal.aborted) return;
    show($("calibration"), against(answer, question.confidence));
    show($("sizes"), bySize(answer, question.confidence));
    show($("norms"), byOrder(answer));
  } catch (refusal) {
    if (signal.aborted) return;
    asked = "";
    showProblem($("calibration"), refusal, tell);
  }
}

function against({ anchors, anchors_in_all: all, measurement, baseline }, confidence) {
  if (!anchors.length) return h("p.hint", {}, "The model was retrained without no set yet: there is nothing to compare with. Verify some answers.");
  const inside = anchors.filter((one) => one.inside_interval).length;
  const unit = UNITS[measurement.kind];
  return [
    h("p", {}, ...capital([label(measurement)]), `: of ${count(anchors.length, "set")}${all > anchors.length ? ` (drawn of ${all.toLocaleString("en")})` : ""} that the model was retrained without, the `,
      `${percent(confidence)} interval holds the retrained value at ${inside} (${percent(inside / anchors.length)}). `,
      "Each was estimated as if it had not been retrained. Outside is red. The model as it is measures ", number(baseline, 4), "."),
    h("p.hint", {}, "Sets that are less like what the model was retrained without are covered less often."),
    againstTruth(anchors, { unit, label: `Estimates against retrained values: ${inside} of ${anchors.length} intervals hold the retrained value` }),
    h("details", {}, h("summary", {}, "Numbers"),
      table("Estimates and retrained values", [["units", "number"], ["retrained", "number"], ["estimate", "number"], ["interval", "number"], ["inside"], ["estimator"]],
        anchors.map((one) => {
          const decimals = one.interval ? decimalsOf(...one.interval) : 4;
          const interval = one.interval ? [number(one.interval[0], decimals), " … ", number(one.interval[1], decimals)] : "not known";
          return [String(one.units), number(one.truth, decimals), number(one.estimate, decimals), interval,
            one.inside_interval === null ? "–" : one.inside_interval ? "yes" : h("strong", {}, "no"), one.estimator];
        }))),
  ];
}

function bySize({ sizes, measurement }, confidence) {
  if (!sizes.length) return h("p.hint", {}, "No set was retrained.");
  const scale = Math.max(...sizes.map((one) => Math.max(one.rms_change, one.rms_error)), 1e-12);
  return [
    table("Calibration by size", [["units", "number"], ["sets", "number"], ["inside", "number"], ["width", "number"], ["error", "number"], ["of change", "plot"]],
      sizes.map((one) => [
        one.smallest === one.largest ? String(one.smallest) : `${one.smallest} – ${one.largest}`, String(one.anchors),
        [h("data", { value: one.inside / one.anchors }, percent(one.inside / one.anchors)),
          h("small", {}, ` ${one.coverage_interval.map((end) => Math.round(100 * end)).join("–")}`)],
        h("data", { value: one.median_width }, figures(one.median_width)), h("data", { value: one.rms_error }, figures(one.rms_error)),
        bar({ value: one.rms_change, low: 0, high: one.rms_error }, [0, scale]),
      ])),
    h("p.hint", {}, `inside: share of the ${percent(confidence)} intervals that hold the retrained value, and what 95% of such shares may mean; width: their median; error: root mean ` +
      `square of estimate less retrained, the line on the bar, which is the root mean square of the change itself. In ${UNITS[measurement.kind]}.`),
  ];
}

function byOrder({ derivative_norms: rows, measurement }) {
  if (!rows.length) return h("p.hint", {}, "The sketch has no random directions, from which they would be known.");
  return [
    rows.length > 1 && rows.every((row) => row.norm > 0) && norms(rows, { label: `Norms of the derivatives by order: ${rows.map((row) => figures(row.norm)).join(", ")}` }),
    table("Norms of the derivatives", [["order", "number"], ["norm", "number"], ["standard error", "number"]], rows.map((row) => [
      String(row.order), h("data", { value: row.norm }, figures(row.norm)), h("data", { value: row.standard_error }, figures(row.standard_error)),
    ])),
    h("p.hint", {}, `Of ${label(measurement)}, from the random directions. Where they fall quickly, low degrees suffice.`),
  ];
}

async function verified(sketch, version, signal) {
  const page = await get("/verifications", { limit: VERIFIED }, { signal });
  const of = page.total > VERIFIED ? ` Of the newest ${VERIFIED} verifications.` : "";
  const pairs = page.items.filter((one) => one.sketch === sketch && one.version === version && one.state === "finished")
    .flatMap((one) => one.measurements.map((row) => ({ ...row, units: one.deleted.units, confidence: one.confidence })))
    .filter(({ truth, interval }) => !Array.isArray(truth) && interval[1] - interval[0] > EXACT_WIDTH);
  if (!pairs.length) return h("p.hint", {}, `None yet that wasn’t exact anyway. Verify an answer, and it stands here.${of}`);
  const inside = pairs.filter((one) => one.inside_interval).length;
  return [
    h("p", {}, `${inside} of ${count(pairs.length, "estimate")} that were verified have the retrained value in their interval.${of}`),
    table("Answers that were verified", [["measurement"], ["units", "number"], ["estimate", "number"], ["retrained", "number"], ["interval", "number"], ["inside"]],
      pairs.slice(0, SHOWN).map((one) => {
        const decimals = decimalsOf(...one.interval);
        return [shown(label(one.measurement), 60), String(one.units), number(one.estimate, decimals), number(one.truth, decimals),
          percent(one.confidence), one.inside_interval ? "yes" : h("strong", {}, "no")];
      })),
  ];
}
