/** How far a version may be trusted: what it is, and how right it was wherever the model was really retrained. */

import * as catalog from "./catalog.js";
import { get, latest, post } from "./api.js";
import { againstTruth, bar, norms } from "./charts.js";
import { $, fill, h, show, showProblem, table } from "./dom.js";
import { change } from "./store.js";
import { bytes, count, decimalsOf, figures, label, moment, number, percent, quoted, seconds, shown, UNITS } from "./words.js";

const VERIFIED = 200; // of the newest verifications are looked through
const SHOWN = 12;
const reading = latest();
let asked = "";

export function mount() {
  $("trust-sketch-field").addEventListener("change", (event) =>
    change({ sketch: event.target.value.trim(), version: null, rules: [], added: [], kept: [] }));
  $("trust-version").addEventListener("change", (event) => change({ version: Number(event.target.value) || null }));
  $("trust-form").addEventListener("submit", (event) => {
    event.preventDefault();
    change({ calibrated: $("trust-text").value });
  });
}

export function forget() {
  asked = "";
}

/** Which measurement is calibrated: the one that is typed here, or else the first of the question that is a number. */
function measurementOf({ calibrated, measurements }) {
  if (calibrated) return { kind: "loss", text: calibrated };
  return measurements.find((one) => (one.kind === "loss" ? one.text : one.completion)) ?? null;
}

export async function follow(question, known, sketches, problem) {
  showProblem($("trust-problem"), problem);
  choices(question, known, sketches);
  const measurement = measurementOf(question);
  if (document.activeElement !== $("trust-text")) $("trust-text").value = measurement?.kind === "loss" ? measurement.text : "";
  const row = known?.versions.find((one) => (question.version === null ? one.is_current : one.number === question.version));
  const wanted = JSON.stringify([question.sketch, row?.number ?? question.version, measurement, question.confidence]);
  if (wanted === asked) return;
  asked = wanted;
  for (const id of ["facts", "calibration", "sizes", "norms", "verified"]) show($(id));
  if (!question.sketch) return;
  const number = row?.number ?? question.version;
  await reading((signal) => Promise.all([
    known && row ? part("facts", signal, () => facts(known, row)) : null,
    calibration(question, number, measurement, signal),
    part("verified", signal, () => verified(question.sketch, number, signal)),
  ]));
}

/** Shows what a part of the page says, or why it can't. */
async function part(id, signal, work) {
  try {
    const children = await work();
    if (!signal.aborted) show($(id), children);
  } catch (refusal) {
    if (!signal.aborted) showProblem($(id), refusal);
  }
}

function choices(question, known, sketches) {
  if (sketches === null) {
    if (!$("trust-sketch").matches("input")) show($("trust-sketch-field"), h("input", { id: "trust-sketch", spellcheck: "false" }));
    $("trust-sketch").value = question.sketch;
  } else {
    fill($("trust-sketch"), sketches.map((one) => [one.name, one.name]), question.sketch);
  }
  const versions = (known?.versions ?? []).filter((one) => one.state !== "deleted");
  fill($("trust-version"), [["", "current"], ...versions.map((one) =>
    [String(one.number), `version ${one.number}${one.state === "retired" ? " (retired)" : ""}`])], String(question.version ?? ""));
}

function list(rows) {
  return h("dl", {}, rows.filter(Boolean).map(([name, ...what]) => [h("dt", {}, name), h("dd", {}, what)]));
}

async function facts(known, row) {
  const { configuration, contains_erased: erased, erased_units: gone } = row;
  const own = list([
    ["Version", `${known.name} ${row.number}, ${row.state}${row.is_current ? ", current" : ""}`],
    ["Registered", moment(row.created_at)],
    ["Erased data", erased ? h("strong.warning", {}, `trained on ${count(gone, "unit")} erased since`) : "none that it was trained on"],
    ["Trained on", quoted(known.dataset.name), known.dataset.description ? [": ", quoted(known.dataset.description)] : "",
      `; ${count(known.dataset.document_count, "document")}, ${count(known.dataset.unit_count, "unit")}`],
    ["Size", bytes(row.size_bytes)],
    ["Checksum", h("code", {}, row.checksum)],
  ]);
  const built = await catalog.build(known.name, row.number).catch((refusal) => refusal);
  if (built.sentences) return [own, ...built.sentences.map((sentence) => h("p.problem", {}, sentence))];
  return [own, list([
    ["Model", `${count(built.parameters, "parameter")}, ${count(built.steps, "training step")}`],
    ["Sketched along", `${count(built.directions, "random direction")} (${configuration.ensemble ?? "none"})` +
      `${built.axes ? " and every unit alone" : ""}, to degree ${built.degree}`],
    ["Retrained", count(built.retrained, "model")],
    ["Cost", `${seconds(built.build_seconds)} on ${built.device}${built.native ? ", native code" : ""}`],
    ["Built", moment(built.created_at)],
    ["Data", h("code", {}, built.fingerprint)],
    ["By", Object.entries(built.libraries).map(([name, version]) => `${name} ${version}`).join(", ")],
  ])];
}

async function calibration(question, version, measurement, signal) {
  if (!measurement) {
    show($("calibration"), h("p.hint", {}, "Type a text above: calibration is of a measurement."));
    return;
  }
  const body = { sketch: question.sketch, version, measurement, confidence: question.confidence };
  try {
    const answer = await post("/calibration", body, { signal });
    if (signal.aborted) return;
    show($("calibration"), against(answer));
    show($("sizes"), bySize(answer));
    show($("norms"), byOrder(answer));
  } catch (refusal) {
    if (!signal.aborted) showProblem($("calibration"), refusal);
  }
}

function against({ anchors, measurement, confidence, baseline }) {
  if (!anchors.length) return h("p.hint", {}, "The model was retrained without no set yet: there is nothing to compare with. Verify some answers.");
  const inside = anchors.filter((one) => one.inside_interval).length;
  const unit = UNITS[measurement.kind];
  return [
    h("p", {}, `${label(measurement)}: of ${count(anchors.length, "set")} that the model was retrained without, the `,
      `${percent(confidence)} interval holds the retrained value at ${inside} (${percent(inside / anchors.length)}). `,
      "Each was estimated as if it had not been retrained. Outside is red. The model as it is measures ", number(baseline, 4), "."),
    againstTruth(anchors, { unit, label: `Estimates against retrained values: ${inside} of ${anchors.length} intervals hold the retrained value` }),
    h("details", {}, h("summary", {}, "Numbers"),
      table("Estimates and retrained values", [["units", "number"], ["retrained", "number"], ["estimate", "number"], ["interval", "number"], ["inside"], ["estimator"]],
        anchors.map((one) => {
          const decimals = decimalsOf(...one.interval);
          return [String(one.units), number(one.truth, decimals), number(one.estimate, decimals),
            [number(one.interval[0], decimals), " … ", number(one.interval[1], decimals)], one.inside_interval ? "yes" : h("strong", {}, "no"), one.estimator];
        }))),
  ];
}

function bySize({ sizes, confidence, measurement }) {
  if (!sizes.length) return h("p.hint", {}, "No set was retrained.");
  const scale = Math.max(...sizes.map((one) => Math.max(one.rms_change, one.rms_error)), 1e-12);
  return [
    table("Calibration by size", [["units", "number"], ["sets", "number"], ["inside", "number"], ["width", "number"], ["error", "number"], ["of change", "plot"]],
      sizes.map((one) => [
        one.smallest === one.largest ? String(one.smallest) : `${one.smallest} – ${one.largest}`, String(one.anchors),
        h("data", { value: one.inside / one.anchors }, percent(one.inside / one.anchors)),
        h("data", { value: one.median_width }, figures(one.median_width)), h("data", { value: one.rms_error }, figures(one.rms_error)),
        bar({ value: one.rms_change, low: 0, high: one.rms_error }, [0, scale]),
      ])),
    h("p.hint", {}, `inside: share of the ${percent(confidence)} intervals that hold the retrained value; width: their median; error: root mean ` +
      `square of estimate less retrained, the line on the bar, which is the root mean square of the change itself. In ${UNITS[measurement.kind]}.`),
  ];
}

function byOrder({ derivative_norms: rows, measurement }) {
  if (!rows.length) return h("p.hint", {}, "The sketch has no random directions, from which they would be known.");
  return [
    rows.length > 1 && norms(rows, { label: `Norms of the derivatives by order: ${rows.map((row) => figures(row.norm)).join(", ")}` }),
    table("Norms of the derivatives", [["order", "number"], ["norm", "number"], ["standard error", "number"]], rows.map((row) => [
      String(row.order), h("data", { value: row.norm }, figures(row.norm)), h("data", { value: row.standard_error }, figures(row.standard_error)),
    ])),
    h("p.hint", {}, `Of the ${label(measurement)}, from the random directions. Where they fall quickly, low degrees suffice.`),
  ];
}

async function verified(sketch, version, signal) {
  const page = await get("/verifications", { limit: VERIFIED }, { signal });
  const own = page.items.filter((one) => one.sketch === sketch && one.version === version && one.state === "finished");
  const pairs = own.flatMap((one) => one.measurements.filter((row) => !Array.isArray(row.truth)).map((row) => ({ ...row, ...one, row })));
  if (!pairs.length) return h("p.hint", {}, "None yet. Verify an answer, and it stands here.");
  const inside = pairs.filter(({ row }) => row.inside_interval).length;
  return [
    h("p", {}, `${count(own.length, "answer")} verified; ${inside} of ${count(pairs.length, "interval")} hold the retrained value.`),
    table("Answers that were verified", [["measurement"], ["units", "number"], ["estimate", "number"], ["retrained", "number"], ["inside"]],
      pairs.slice(0, SHOWN).map(({ row, deleted }) => {
        const decimals = decimalsOf(...row.interval);
        return [shown(label(row.measurement), 60), String(deleted.units), number(row.estimate, decimals), number(row.truth, decimals),
          row.inside_interval ? "yes" : h("strong", {}, "no")];
      })),
  ];
}
