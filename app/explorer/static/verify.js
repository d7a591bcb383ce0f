/** The truth: the model retrained without what is deleted, beside what was estimated before. */

import { get, latest, part, post, watched } from "./api.js";
import { $, enable, h, isEnabled, show, showProblem } from "./dom.js";
import { change, tell } from "./store.js";
import { count, number, seconds } from "./words.js";

const working = latest();

let body = null;
let begun = ""; // the deletion whose verification is being asked for
let followed = ""; // the verification that is followed, or is known
let found = null; // it, once it is finished
let whenKnown = () => undefined;

export function mount(redraw) {
  whenKnown = redraw;
  $("verify-button").addEventListener("click", () => isEnabled($("verify-button")) && void begin());
}

/** Follows the verification that the address names, which is of this deletion. */
export async function follow({ verification }, asked) {
  body = asked;
  const gone = begun !== "" && begun !== deletionOf(body); // what was begun is of another deletion
  if (verification === followed && !gone) return;
  begun = "";
  followed = verification;
  found = null;
  show($("verify-state"));
  enable($("verify-button"), !verification);
  if (!verification) {
    working.stop();
    return;
  }
  try {
    await working(async (signal) => finish(await watched(
      () => get(`/verifications/${part(verification)}`, undefined, { signal }), isOver, say, signal)));
  } catch (refusal) {
    followed = "";
    enable($("verify-button"), true);
    showProblem($("verify-state"), refusal, tell);
  }
}

/** Forgets what was found, as another key may see something else. */
export function forget() {
  working.stop();
  begun = followed = "";
  found = null;
  show($("verify-state"));
  enable($("verify-button"), true);
}

/** Shows the way to the truth, but where it is known already and nothing was estimated. */
export function showFor(allExact) {
  $("verify").hidden = allExact && !followed;
}

/** What was estimated and what is true of a measurement; undefined where nobody asked, or knows yet. */
export function truthOf(measurement) {
  const name = nameOf(measurement);
  return found?.measurements.find((one) => nameOf(one.measurement) === name);
}

const deletionOf = (asked) => asked && JSON.stringify([asked.sketch, asked.version, asked.delete]);
const nameOf = ({ kind, text, prompt, completion }) => JSON.stringify([kind, text, prompt, completion]);

/** Truth and estimate in words. */
export function sentence({ truth, estimate, interval, inside_interval: inside }, decimals) {
  const apart = Math.abs(estimate - truth);
  const off = h("data", { value: String(apart) }, number(apart, decimals + 1).textContent);
  const how = estimate === truth ? "exactly as estimated" : ["the estimate ", number(estimate, decimals), " was too ", estimate < truth ? "low" : "high", " by ", off];
  return h("p.truth", {}, "Retrained: ", number(truth, decimals), inside ? ", inside the interval" : [", outside the interval ",
    number(interval[0], decimals), " to ", number(interval[1], decimals)], "; ", how, ".");
}

async function begin() {
  enable($("verify-button"), false);
  show($("verify-state"), h("p.hint", {}, "Asked."));
  const [own, deletion] = [body, deletionOf(body)];
  begun = deletion;
  try {
    const { verification } = await post("/predict", { ...own, downweight: 1, verify: true });
    if (begun === deletion) change({ version: own.version, verification: verification.id }); // it is of this version for good
  } catch (refusal) {
    if (begun !== deletion) return;
    begun = "";
    enable($("verify-button"), true);
    showProblem($("verify-state"), refusal);
  }
}

const isOver = ({ state }) => state === "finished" || state === "failed";

const STATES = { pending: "Waiting for a turn to retrain …", running: "Retraining …" };

function say({ state }) {
  if (STATES[state] && $("verify-state").textContent !== STATES[state]) show($("verify-state"), h("p.hint", {}, STATES[state]));
}

function finish(done) {
  if (done.state === "failed") {
    enable($("verify-button"), true);
    showProblem($("verify-state"), { sentences: [`There will be no truth: ${done.reason}`] });
    return;
  }
  found = done;
  const took = (new Date(done.finished_at) - new Date(done.started_at)) / 1000;
  show($("verify-state"), h("p.hint", {}, `Retrained without ${count(done.deleted.units, "unit")} in ${seconds(took)}.`));
  whenKnown();
}
