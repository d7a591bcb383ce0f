/** The answer: what the model measures as it is, and what it would without what is deleted. */

import { latest, post } from "./api.js";
import { bar, curve } from "./charts.js";
import { $, h, show, showProblem, table } from "./dom.js";
import { deletion } from "./selection.js";
import * as samples from "./samples.js";
import * as verify from "./verify.js";
import { count, decimalsOf, ESTIMATORS, label, measured, number, percent, quoted, shown, signed, UNITS } from "./words.js";

const CURVE = Array.from({ length: 11 }, (_, step) => step / 10);
const MOST_OUTCOMES = 8;
const EXACT_DECIMALS = 4;
const asking = latest();

let asked = ""; // the body that was asked last
let answered = null; // and its answer

/** Whether a measurement says something that can be measured. */
export const isWhole = ({ kind, text, completion }) => kind === "next_token" || Boolean(kind === "loss" ? text : completion);

/** The body of POST /predict for a question; null where something is missing. */
export function bodyOf(question, selection) {
  const measurements = question.measurements.filter(isWhole);
  if (!question.sketch || !measurements.length || !selection.units.size) return null;
  const { sketch, version, estimator, degree, confidence } = question;
  return { sketch, version, delete: deletion(question, selection.units), measurements, estimator, degree, confidence };
}

export function mount() {
  verify.mount(() => answered && drawAnswer());
  samples.mount();
}

/** Asks, where there is something to ask that isn't answered yet. */
export async function follow(question, selection) {
  const body = bodyOf(question, selection);
  const text = JSON.stringify(body);
  samples.follow(question, body);
  if (text === asked) return;
  asked = text;
  verify.follow(body);
  if (!body) {
    void asking(async () => undefined); // what is under way is of no interest any more
    clear();
    return;
  }
  const began = performance.now();
  try {
    const answer = await asking((signal) => post("/predict", { ...body, downweight: CURVE }, { signal }));
    if (!answer) return;
    answered = { answer, body, confidence: body.confidence, milliseconds: performance.now() - began };
    drawAnswer();
  } catch (refusal) {
    clear();
    showProblem($("answer-problem"), refusal);
  }
}

/** Forgets what was answered, as another key may be answered otherwise. */
export function forget() {
  asked = "";
}

function clear() {
  answered = null;
  for (const id of ["answers", "answer-said", "answer-notes", "answer-problem"]) show($(id));
  $("answer-time").textContent = "";
  $("answer-empty").hidden = false;
  $("verify").hidden = $("samples").hidden = true;
}

function drawAnswer() {
  const { answer, body, confidence, milliseconds } = answered;
  const truths = verify.truthsOf(body);
  show($("answer-problem"));
  $("answer-empty").hidden = true;
  $("verify").hidden = $("samples").hidden = false;
  show(
    $("answer-time"), `${answer.sketch} version ${answer.version}, `, number(answer.elapsed_ms, 1), ` ms in the service, `,
    `${milliseconds.toFixed(0)} ms with the way there`,
  );
  show($("answer-notes"), notes(answer).map((sentence) => h("p.note", {}, sentence)));
  show($("answers"), answer.predictions.map((prediction, index) =>
    (prediction.outcomes ? distribution : single)(prediction, confidence, truths?.[index]?.truth ?? undefined)));
  // What is read out: the sentences, and not all the tables.
  $("answer-said").textContent = [...$("answers").querySelectorAll(".verdict, .truth")].map((one) => one.textContent).join(" ");
}

function notes({ contains_erased: erased, predictions }) {
  const missing = Math.max(...predictions.map((one) => one.missing_share));
  return [
    erased && "This version was trained on units that have been erased since.",
    missing > 0 && `${percent(missing)} of the random directions are away now: intervals are wider for it.`,
  ].filter(Boolean);
}

/** In plain words: what becomes of a number. */
function sentence(prediction, confidence, decimals) {
  const { measurement, baseline, estimate, change, interval, below_resolution: below, estimator } = prediction;
  const [before, after] = [number(baseline, decimals), number(estimate, decimals)];
  const [low, high] = interval.map((end) => number(end, decimals));
  const of = capital(measured(measurement));
  if (estimator === "retrained") {
    const way = change > 0 ? " rises from " : change < 0 ? " falls from " : " stays: from ";
    return [...of, way, before, " to ", after, ", exactly: the model was retrained without this very set."];
  }
  const reach = [`${percent(confidence)} interval `, low, " to ", high];
  if (below) {
    return ["Whether ", ...measured(measurement), " changes can’t be told: it is ", before, " before, ", after, " after, and the ",
      ...reach, ", holds the value before."];
  }
  return [...of, change > 0 ? " rises from " : " falls from ", before, " to ", after, ", ", ...reach, "."];
}

function capital([first, ...rest]) {
  return [first[0].toUpperCase() + first.slice(1), ...rest];
}

function single(prediction, confidence, truth) {
  const { measurement, baseline, interval, terms, estimator, degree, below_resolution: below, standard_error: error } = prediction;
  const decimals = estimator === "retrained" ? EXACT_DECIMALS : decimalsOf(...interval);
  const points = prediction.curve ?? [];
  const what = shown(label(measurement), 80);
  return h(
    "article.card", { "aria-label": what },
    h("p.verdict", { "data-below": below }, sentence(prediction, confidence, decimals)),
    below && h("p.badge", {}, "below resolution"),
    truth !== undefined && verify.truthSentence(prediction, truth, decimals),
    points.length > 1 && curve(points, {
      baseline, truth, unit: UNITS[measurement.kind],
      label: `${what} over the downweight: from ${baseline.toFixed(decimals)} at 0 to ${prediction.estimate.toFixed(decimals)} at 1`,
    }),
    degreesAtAGlance(terms, decimals),
    h("details", {}, h("summary", {}, "Numbers"),
      h("p.hint", {}, ...by(estimator, degree), "; standard error ", number(error, decimals + 1), ` ${UNITS[measurement.kind]}.`),
      degrees(terms, decimals),
      points.length > 1 && table(`The curve of the ${what}`, [["downweight", "number"], ["estimate", "number"], ["interval", "number"]],
        points.map((point) => [point.downweight.toFixed(1), number(point.estimate, decimals),
          [number(point.interval[0], decimals), " … ", number(point.interval[1], decimals)]])),
    ),
  );
}

/** Which estimator it was. */
const by = (estimator, degree) =>
  estimator === "retrained" ? [ESTIMATORS.retrained] : [`Estimated by ${ESTIMATORS[estimator]}, degree ${degree}`];

/** What each degree of the expansion adds, as bars. */
function degreesAtAGlance(terms, decimals) {
  if (!terms.length) return null;
  const scale = Math.max(...terms.map((term) => Math.abs(term.value) + term.standard_error), 1e-12);
  return h("ul.degrees", { "aria-label": "What each degree adds" }, terms.map((term) =>
    h("li", {}, h("span", {}, `degree ${term.degree}`),
      bar({ value: term.value, low: term.value - term.standard_error, high: term.value + term.standard_error }, [-scale, scale]),
      h("span.number", {}, signed(term.value, decimals)))));
}

function degrees(terms, decimals) {
  if (!terms.length) return null;
  return table("What each degree adds", [["degree", "number"], ["adds", "number"], ["standard error", "number"]],
    terms.map((term) => [String(term.degree), signed(term.value, decimals + 1), number(term.standard_error, decimals + 1)]));
}

function distribution({ measurement, outcomes, estimator, degree }, confidence, truths) {
  const rows = outcomes.map((outcome, index) => ({ ...outcome, truth: truths?.[index] }))
    .sort((one, other) => Math.max(other.baseline, other.estimate) - Math.max(one.baseline, one.estimate));
  const scale = Math.max(...rows.map((row) => Math.max(row.baseline, row.interval[1])), 1e-12);
  const most = rows.reduce((found, row) => (Math.abs(row.change) > Math.abs(found.change) ? row : found), rows[0]);
  const below = rows.every((row) => row.below_resolution);
  const columns = [["character"], ["before", "number"], ["after", "number"], ["", "plot"], [`${percent(confidence)} interval`, "number"],
    ...(truths ? [["retrained", "number"]] : [])];
  const cells = (row) => [
    token(row.token), number(row.baseline, 3), number(row.estimate, 3),
    bar({ value: row.estimate, low: row.interval[0], high: row.interval[1], truth: row.truth, before: row.baseline }, [0, scale]),
    [number(row.interval[0], 3), " … ", number(row.interval[1], 3)],
    ...(truths ? [number(row.truth, 3)] : []),
  ];
  const decimals = decimalsOf(...most.interval);
  return h(
    "article.card", { "aria-label": label(measurement) },
    h("p.verdict", { "data-below": below }, below
      ? ["Whether ", ...measured(measurement), " changes can’t be told: every interval holds the probability before."]
      : ["Of ", ...measured(measurement), ", ", token(most.token), " changes most: from ", number(most.baseline, decimals), " to ",
          number(most.estimate, decimals), ` (${percent(confidence)} interval `, number(most.interval[0], decimals), " to ",
          number(most.interval[1], decimals), ")."]),
    below && h("p.badge", {}, "below resolution"),
    table(`Probabilities: ${label(measurement)}`, columns, rows.slice(0, MOST_OUTCOMES).map(cells)),
    h("details", {}, h("summary", {}, `All ${count(rows.length, "character")}`),
      h("p.hint", {}, ...by(estimator, degree), "."),
      table(`All probabilities: ${label(measurement)}`, columns, rows.map(cells))),
  );
}

const token = (text) => (text ? quoted(text === " " ? "␠" : text, 8) : h("i", {}, "end"));

