/** The answer: what the model measures as it is, and what it would without what is deleted. */

import { post } from "./api.js";
import { bar, curve } from "./charts.js";
import { $, h, show, table } from "./dom.js";
import { follower } from "./follower.js";
import { deletion } from "./selection.js";
import * as samples from "./samples.js";
import * as verify from "./verify.js";
import {
  capital, count, decimalsFor, decimalsOf, ESTIMATORS, label, measured, number, percent, precisionOf, quoted, shown, signed, UNITS,
} from "./words.js";

const CURVE = Array.from({ length: 11 }, (_, step) => step / 10);
const MOST_OUTCOMES = 8;

let answered = null; // what stands there: {answer, confidence, milliseconds}
const answers = follower({ place: $("answers"), problem: $("answer-problem"), ask, draw, clear });

/** Whether a measurement says something that can be measured. */
export const isWhole = ({ kind, text, completion }) => kind === "next_token" || Boolean(kind === "loss" ? text : completion);

/** The body of POST /predict for a question about a version; null where something is missing. */
function bodyOf(question, version, selection) {
  const measurements = question.measurements.filter(isWhole);
  const deleted = deletion(question, selection);
  if (!question.sketch || !measurements.length || !deleted) return null;
  const { sketch, estimator, degree, confidence } = question;
  return { sketch, version, delete: deleted, measurements, estimator, degree, confidence };
}

export function mount() {
  verify.mount(() => answered && drawAnswer());
  samples.mount();
  $("glance").addEventListener("click", () => $("answer-title").scrollIntoView());
  new IntersectionObserver(([{ isIntersecting: seen }]) => $("glance").classList.toggle("unneeded", seen)).observe($("answer-title"));
}

/** Asks, where there is something to ask that isn't answered yet. */
export async function follow(question, version, selection) {
  const body = bodyOf(question, version, selection);
  void samples.follow(question, body);
  void verify.follow(question, body);
  await answers.follow(body);
}

async function ask(body, signal) {
  const began = performance.now();
  const answer = await post("/predict", { ...body, downweight: CURVE }, { signal });
  return { answer, confidence: body.confidence, milliseconds: performance.now() - began };
}

function draw(answer) {
  answered = answer;
  drawAnswer();
}

/** Forgets what was answered, as another key may be answered otherwise. */
export function forget() {
  answers.forget();
  verify.forget();
  samples.forget();
}

function clear() {
  answered = null;
  for (const id of ["answers", "answer-said", "answer-notes", "answer-problem"]) show($(id));
  $("answer-time").textContent = "";
  $("answer-empty").hidden = false;
  $("verify").hidden = $("samples").hidden = $("glance").hidden = true;
}

function drawAnswer() {
  const { answer, confidence, milliseconds } = answered;
  const place = $("answers");
  const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.of));
  show($("answer-problem"));
  $("answer-empty").hidden = true;
  $("samples").hidden = false;
  verify.showFor(answer.predictions.every((one) => one.estimator === "retrained"));
  show(
    $("answer-time"), `${answer.sketch} version ${answer.version}, `, number(answer.elapsed_ms, 1), ` ms in the service, `,
    `${milliseconds.toFixed(0)} ms with the way there`,
  );
  show($("answer-notes"), notes(answer).map((sentence) => h("p.note", {}, sentence)));
  show(place, answer.predictions.map((prediction, index) =>
    (prediction.outcomes ? distribution : single)(prediction, confidence, verify.truthOf(prediction.measurement), String(index))));
  for (const details of place.querySelectorAll("details")) details.open = open.has(details.dataset.of);
  // What is read out: the sentences, and not all the tables.
  const said = [...place.querySelectorAll(".verdict, .truth")].map((one) => one.textContent);
  $("answer-said").textContent = said.join(" ");
  $("glance").textContent = said[0];
  $("glance").hidden = false;
}

function notes({ contains_erased: erased, predictions }) {
  const missing = Math.max(...predictions.map((one) => one.missing_share));
  const precision = Math.max(...predictions.map(precisionIn));
  return [
    erased && "This version was trained on units that have been erased since.",
    missing > 0 && `${percent(missing)} of the random directions are away now: intervals are wider for it.`,
    precision < Infinity && `This key gets numbers that are rounded to ${count(precision, "decimal")}.`,
  ].filter(Boolean);
}

const precisionIn = ({ outcomes, baseline, estimate, interval }) =>
  precisionOf((outcomes ?? [{ baseline, estimate, interval }]).flatMap((one) => [one.baseline, one.estimate, ...one.interval]));

/** How many decimals show a prediction: as its interval needs, or its change where it is exact; none that nobody knows. */
function decimalsIn({ estimator, change, interval }, precision) {
  return Math.min(precision, estimator === "retrained" ? Math.max(4, decimalsFor(Math.abs(change), 3)) : decimalsOf(...interval));
}

/** In plain words: what becomes of a number. */
function sentence({ measurement, baseline, estimate, change, interval, below_resolution: below, estimator }, confidence, decimals) {
  const [before, after] = [number(baseline, decimals), number(estimate, decimals)];
  const [low, high] = interval.map((end) => number(end, decimals));
  const of = capital(measured(measurement));
  const same = before.textContent === after.textContent;
  if (estimator === "retrained") {
    const exactly = ": exactly, as the model was retrained without this very set.";
    return same ? [...of, " stays at ", before, exactly] : [...of, change > 0 ? " rises from " : " falls from ", before, " to ", after, exactly];
  }
  const reach = [`${percent(confidence)} interval `, low, " to ", high];
  if (below) {
    return ["Whether ", ...measured(measurement), " changes can’t be told: it is ", before, " before, ", after, " after, and the ",
      ...reach, ", holds the value before."];
  }
  return [...of, change > 0 ? " rises from " : " falls from ", before, " to ", after, ", ", ...reach, "."];
}

function single(prediction, confidence, truth, name) {
  const { measurement, baseline, terms, estimator, degree, below_resolution: below, standard_error: error } = prediction;
  const precision = precisionIn(prediction);
  const decimals = decimalsIn(prediction, precision);
  const points = prediction.curve ?? [];
  const what = shown(label(measurement), 80);
  return h(
    "article.card", { "aria-label": what },
    h("p.verdict", {}, sentence(prediction, confidence, decimals)),
    below && h("p.badge", {}, "below resolution"),
    truth && verify.sentence(truth, Math.min(precision, decimalsOf(...truth.interval), 4)),
    points.length > 1 && curve(points, {
      baseline, truth: truth?.truth, unit: UNITS[measurement.kind],
      label: `${what} over the downweight: from ${baseline.toFixed(decimals)} at 0 to ${prediction.estimate.toFixed(decimals)} at 1`,
    }),
    contributions(terms, degree, decimals),
    h("details", { "data-of": name }, h("summary", {}, "Numbers"),
      h("p.hint", {}, by(estimator, degree), "; standard error ", number(error, Math.min(precision, decimals + 1)), ` ${UNITS[measurement.kind]}.`),
      terms.length > 0 && table("What each degree adds", [["degree", "number"], ["adds", "number"], ["standard error", "number"]],
        terms.map((term) => [String(term.degree), signed(term.value, decimals), number(term.standard_error, decimals)])),
      points.length > 1 && table(`The curve of the ${what}`, [["downweight", "number"], ["estimate", "number"], ["interval", "number"]],
        points.map((point) => [point.downweight.toFixed(1), number(point.estimate, decimals),
          [number(point.interval[0], decimals), " … ", number(point.interval[1], decimals)]])),
    ),
  );
}

/** Which estimator it was. */
const by = (estimator, degree) =>
  estimator === "retrained" ? ESTIMATORS.retrained : `Estimated by ${ESTIMATORS[estimator] ?? estimator}, degree ${degree}`;

/** What each degree of the expansion adds, as bars; those beyond the estimate's degree are only known, not used. */
function contributions(terms, degree, decimals) {
  const used = terms.filter((term) => term.degree <= degree);
  if (!used.length) return null;
  const scale = Math.max(...used.map((term) => Math.abs(term.value) + term.standard_error), 1e-12);
  return h("ul.degrees", { "aria-label": "What each degree adds" }, terms.map((term) => term.degree <= degree
    ? h("li", {}, h("span", {}, `degree ${term.degree}`),
      bar({ value: term.value, low: term.value - term.standard_error, high: term.value + term.standard_error }, [-scale, scale]),
      h("span.number", {}, signed(term.value, decimals)))
    : h("li", {}, h("span", {}, `degree ${term.degree}`), h("span.unused", {}, "not used: too uncertain"), h("span"))));
}

function distribution({ measurement, outcomes, estimator, degree }, confidence, truth, name) {
  const rows = outcomes.map((outcome, index) => ({ ...outcome, truth: truth?.truth[index] }))
    .sort((one, other) => Math.max(other.baseline, other.estimate) - Math.max(one.baseline, one.estimate));
  const exact = estimator === "retrained";
  const precision = precisionIn({ outcomes });
  const scale = Math.max(...rows.map((row) => Math.max(row.baseline, row.interval[1])), 1e-12);
  const told = exact ? rows : rows.filter((row) => !row.below_resolution);
  const most = told.reduce((found, row) => (!found || Math.abs(row.change) > Math.abs(found.change) ? row : found), undefined);
  const columns = [["character"], ["before", "number"], ["after", "number"], ["", "plot"],
    ...(exact ? [] : [[`${percent(confidence)} interval`, "number"]]), ...(truth ? [["retrained", "number"]] : [])];
  const shownOf = (value) => number(value, Math.min(precision, 3));
  const cells = (row) => [
    token(row.token), shownOf(row.baseline), shownOf(row.estimate),
    bar({ value: row.estimate, low: row.interval[0], high: row.interval[1], truth: row.truth, before: row.baseline }, [0, scale]),
    ...(exact ? [] : [[shownOf(row.interval[0]), " … ", shownOf(row.interval[1])]]),
    ...(truth ? [shownOf(row.truth)] : []),
  ];
  return h(
    "article.card", { "aria-label": label(measurement) },
    h("p.verdict", {}, distributionSentence(measurement, most, { exact, confidence, precision, told: told.length, of: rows.length })),
    !most && h("p.badge", {}, "below resolution"),
    table(`Probabilities: ${label(measurement)}`, columns, rows.slice(0, MOST_OUTCOMES).map(cells)),
    h("details", { "data-of": name }, h("summary", {}, `All ${count(rows.length, "character")}`),
      h("p.hint", {}, by(estimator, degree), "."),
      table(`All probabilities: ${label(measurement)}`, columns, rows.map(cells))),
  );
}

function distributionSentence(measurement, most, { exact, confidence, precision, told, of }) {
  const what = measured(measurement);
  if (!most) return ["Whether ", ...what, " changes can’t be told: every interval holds the probability before."];
  const decimals = decimalsIn({ ...most, estimator: exact && "retrained" }, precision);
  const [before, after] = [number(most.baseline, decimals), number(most.estimate, decimals)];
  if (before.textContent === after.textContent) return [...capital(what), " stays as it is, to the decimals that are known."];
  const changes = ["Of ", ...what, ", ", token(most.token), " changes most", exact ? "" : ` of what can be told (${told} of ${of})`, ": from ", before, " to ", after];
  if (exact) return [...changes, ", exactly, as the model was retrained without this very set."];
  return [...changes, `, ${percent(confidence)} interval `, number(most.interval[0], decimals), " to ", number(most.interval[1], decimals), "."];
}

const token = (text) => (text ? quoted(text === " " ? "␠" : text, 8) : h("i", {}, "end"));
