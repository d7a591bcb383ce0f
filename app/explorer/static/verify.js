/** The truth: the model retrained without what is deleted, beside what was answered. */

import { get, latest, post } from "./api.js";
import { $, h, show, showProblem } from "./dom.js";
import { count, number, seconds, signed } from "./words.js";

const LOOK_AGAIN = 400;
const working = latest();
const truths = new Map(); // what was found out in this tab, by the question's body

let body = null;
let redraw = () => undefined;

export function mount(whenKnown) {
  redraw = whenKnown;
  $("verify-button").addEventListener("click", () => void begin());
}

/** Shows what is known of another question, and lets go of what is under way. */
export function follow(asked) {
  void working(async () => undefined);
  body = asked;
  const known = truthsOf(asked);
  $("verify-button").disabled = false;
  show($("verify-state"), known && h("p.hint", {}, "Retrained: the true values stand beside the estimates."));
}

/** What the retrained model measures, a value or a list of them for each measurement; null where nobody knows yet. */
export const truthsOf = (asked) => truths.get(JSON.stringify(asked)) ?? null;

/** A true value in words, beside the estimate that it belongs to. */
export function truthSentence({ estimate, interval }, truth, decimals) {
  const inside = interval[0] <= truth && truth <= interval[1];
  return h("p.truth", {}, "Retrained: ", number(truth, decimals), inside ? ", inside the interval; " : ", outside the interval; ",
    "the estimate is off by ", signed(estimate - truth, decimals + 1), ".");
}

async function begin() {
  const own = body;
  const name = JSON.stringify(own);
  $("verify-button").disabled = true;
  show($("verify-state"), h("p.hint", {}, "Asked."));
  try {
    await working(async (signal) => {
      const { verification } = await post("/predict", { ...own, downweight: 1, verify: true }, { signal });
      const done = await finished(verification.url, signal);
      if (done.state === "failed") {
        show($("verify-state"), h("p.problem", {}, `There will be no truth: ${done.reason}`));
        return;
      }
      truths.set(name, done.measurements);
      const took = (new Date(done.finished_at) - new Date(done.started_at)) / 1000;
      show($("verify-state"), h("p.hint", {}, `Retrained without ${count(done.deleted.units, "unit")} in ${seconds(took)}.`));
      redraw();
    });
  } catch (refusal) {
    showProblem($("verify-state"), refusal);
  } finally {
    if (own === body) $("verify-button").disabled = false;
  }
}

async function finished(url, signal) {
  for (;;) {
    const found = await get(url, undefined, { signal });
    if (found.state === "finished" || found.state === "failed") return found;
    show($("verify-state"), h("p.hint", {}, found.state === "running" ? "Retraining …" : "Waiting for a turn to retrain …"));
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
  }
}
