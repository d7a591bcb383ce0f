/** Texts of both models from the same random numbers: they differ only where the models do. */

import { post } from "./api.js";
import { $, h, show, sync, table, taken } from "./dom.js";
import { follower } from "./follower.js";
import { change } from "./store.js";
import { count, quoted } from "./words.js";

const FIELDS = ["count", "seed", "prompt"];

const texts = follower({
  place: $("samples-texts"), problem: $("samples-texts"),
  ask: (body, signal) => post("/samples", body, { signal }),
  draw: showTexts, clear: () => show($("samples-texts")),
});

export function mount() {
  $("samples-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const [many, seed, prompt] = FIELDS.map((name) => taken($(`samples-${name}`)));
    texts.giveUp(); // the same may be drawn again
    change({ samples: { count: Number(many), seed: Number(seed), prompt } });
  });
}

/** Forgets what was drawn, as another key may see something else. */
export const { forget } = texts;

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
  await texts.follow(wanted);
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
