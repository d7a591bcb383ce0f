/** Texts of both models from the same random numbers: they differ only where the models do. */

import { busy, latest, post } from "./api.js";
import { $, h, show, showProblem, sync, table, taken } from "./dom.js";
import { change, tell } from "./store.js";
import { count, quoted } from "./words.js";

const FIELDS = ["count", "seed", "prompt"];
const drawing = latest();
let drawn = "";

export function mount() {
  $("samples-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const [texts, seed, prompt] = FIELDS.map((name) => taken($(`samples-${name}`)));
    drawn = "";
    change({ samples: { count: Number(texts), seed: Number(seed), prompt } });
  });
}

/** Forgets what was drawn, as another key may see something else. */
export function forget() {
  drawing.stop();
  drawn = "";
  show($("samples-texts"));
}

const SOURCES = {
  retrained: "The model without it was really retrained.",
  axes: "The parameters without it are added up from the models without each unit.",
  pairs: "The parameters without it are added up from the models without each unit, and each pair.",
};

/** Draws what a question asks for; its texts stay where they are until there are others. */
export async function follow(question, body) {
  const { samples } = question;
  if (samples) for (const name of FIELDS) sync($(`samples-${name}`), samples[name]);
  const wanted = samples && body && { sketch: body.sketch, version: body.version, delete: body.delete, ...samples };
  const text = JSON.stringify(wanted);
  if (text === drawn) return;
  drawn = text;
  if (!wanted) {
    drawing.stop();
    show($("samples-texts"));
    return;
  }
  try {
    const answer = await busy($("samples-texts"), drawing((signal) => post("/samples", wanted, { signal })));
    if (answer) showTexts(answer);
  } catch (refusal) {
    drawn = "";
    showProblem($("samples-texts"), refusal, tell);
  }
}

function showTexts({ samples, source }) {
  const differ = samples.filter((one) => one.baseline !== one.counterfactual).length;
  show(
    $("samples-texts"),
    h("p.hint", {}, `${count(differ, "text")} of ${samples.length} ${differ === 1 ? "differs" : "differ"}. ${SOURCES[source]}`),
    table("Texts of both models", [["as it is"], ["without it"]], samples.map((one) => [
      quoted(one.baseline),
      one.baseline === one.counterfactual ? h("span.same", {}, quoted(one.counterfactual)) : h("strong", {}, quoted(one.counterfactual)),
    ])),
  );
}
