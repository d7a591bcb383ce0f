/** The truth: the model retrained without what is deleted, beside what was estimated before. */

import { get, latest, part, post, watched } from "./api.js";
import { $, enable, h, isEnabled, show, showProblem } from "./dom.js";
import { change, deletesTheSame, question, tell } from "./store.js";
import { count, number, seconds } from "./words.js";

const working = latest();

let body = null; // what is answered
let of = null; // the question that it is of
let begun = null; // the question whose verification is being asked for
let followed = ""; // the verification that is followed, or is known; null where a refusal stands there
let found = null; // it, once it is finished
let whenKnown = () => undefined;

export function mount(redraw) {
  whenKnown = redraw;
  $("verify-button").addEventListener("click", () => isEnabled($("verify-button")) && void begin());
}

/** Follows the verification that the address names, which is of this deletion. */
export async function follow(asked, answered) {
  [body, of] = [answered, asked];
  const { verification } = asked;
  if (verification === followed && (!begun || deletesTheSame(begun, asked))) return;
  begun = null;
  followed = verification;
  found = null;
  show($("verify-state"));
  enable($("verify-button"), !verification);
  whenKnown(); // what was true of another one
  if (!verification) {
    working.stop();
    return;
  }
  try {
    await working(async (signal) => finish(await watched(
      () => get(`/verifications/${part(verification)}`, undefined, { signal }), isOver, say, signal)));
  } catch (refusal) {
    followed = null;
    enable($("verify-button"), true);
    showProblem($("verify-state"), refusal, tell);
  }
}

/** Forgets what was found, as another key may see something else. */
export function forget() {
  working.stop();
  begun = null;
  followed = "";
  found = null;
  show($("verify-state"));
  enable($("verify-button"), true);
}

/** Shows the way to the truth, but where it is known already and nothing was estimated. */
export function showFor(allExact) {
  $("verify").hidden = allExact && !of.verification;
}

/** What was estimated and what is true of a measurement; undefined where nobody asked, or knows yet. */
export function truthOf(measurement) {
  const name = nameOf(measurement);
  return found?.measurements.find((one) => nameOf(one.measurement) === name);
}

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
  if (!deletesTheSame(of, question())) return; // what stands there is of the question before
  enable($("verify-button"), false);
  show($("verify-state"), h("p.hint", {}, "Asked."));
  const { version } = body;
  const own = (begun = of);
  let refusal = null;
  try {
    const { verification } = await post("/predict", { ...body, downweight: 1, verify: true });
    if (begun === own && deletesTheSame(own, question())) {
      change({ version, verification: verification.id }); // it is of this version for good
      return;
    }
  } catch (why) {
    refusal = why;
  }
  if (begun !== own) return;
  begun = null;
  if (refusal) followed = null;
  enable($("verify-button"), true);
  showProblem($("verify-state"), refusal);
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
