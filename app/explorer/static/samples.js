/** Texts of both models from the same random numbers: they differ only where the models do. */

import { latest, post } from "./api.js";
import { $, h, show, showProblem, table } from "./dom.js";
import { change } from "./store.js";
import { count, quoted } from "./words.js";

const drawing = latest();
let drawn = "";

export function mount() {
  $("samples-form").addEventListener("submit", (event) => {
    event.preventDefault();
    drawn = "";
    change({
      samples: {
        count: Number($("samples-count").value), seed: Number($("samples-seed").value), prompt: $("samples-prompt").value,
      },
    });
  });
}

const SOURCES = {
  retrained: "The model without it was really retrained.",
  axes: "The parameters without it are added up from the models without each unit.",
  pairs: "The parameters without it are added up from the models without each unit, and each pair.",
};

/** Draws what a question asks for; its texts stay where they are until there are others. */
export async function follow({ samples }, body) {
  if (samples) {
    for (const [id, value] of [["count", samples.count], ["seed", samples.seed], ["prompt", samples.prompt]]) {
      const input = $(`samples-${id}`);
      if (input !== document.activeElement) input.value = value;
    }
  }
  const wanted = samples && body && { sketch: body.sketch, version: body.version, delete: body.delete, ...samples };
  const text = JSON.stringify(wanted);
  if (text === drawn) return;
  drawn = text;
  if (!wanted) {
    show($("samples-texts"));
    return;
  }
  try {
    const answer = await drawing((signal) => post("/samples", wanted, { signal }));
    if (answer) showTexts(answer);
  } catch (refusal) {
    showProblem($("samples-texts"), refusal);
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
