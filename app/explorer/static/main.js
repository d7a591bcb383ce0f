/** The page: follows its address, and asks the API what the views show. */

import * as answer from "./answer.js";
import * as ask from "./ask.js";
import * as catalog from "./catalog.js";
import * as influence from "./influence.js";
import * as requests from "./requests.js";
import * as trust from "./trust.js";
import { VIEWS, write } from "./address.js";
import { hasKey, latest, Refusal, useKey, whenKeyIsNeeded } from "./api.js";
import { $ } from "./dom.js";
import { NOTHING, select } from "./selection.js";
import * as store from "./store.js";

const TITLES = { ask: "Neverseen", trust: "Trust · Neverseen", requests: "Requests · Neverseen" };
const FORBIDDEN = 403;
const knowing = latest();

let sketches = []; // null where the catalog can't be read

/** Shows a view of a question: at once what is in the address, then what the API says of it. */
async function follow(view, question) {
  showView(view, question);
  if (view === "requests") {
    void knowing(async () => requests.follow(question)); // and what the other views ask is of no interest any more
    return;
  }
  requests.leave();
  await knowing(async (signal) => {
    const { known, problem } = await whatIsKnown(question);
    if (signal.aborted) return;
    if (!question.sketch && sketches?.length) {
      store.change({ sketch: sketches[0].name });
      return;
    }
    if (view === "trust") {
      await trust.follow(question, known, sketches, problem);
      return;
    }
    ask.follow(question, known, sketches, problem);
    const { selection, refusal } = await whatIsDeleted(known, question);
    if (signal.aborted) return;
    ask.select(selection, refusal);
    void answer.follow(question, selection);
    void influence.follow(question, selection, known?.dataset.unit_count);
  });
}

/** What the catalog says of the question's sketch. A key that may not read it can still ask about what it can name. */
async function whatIsKnown({ sketch }) {
  try {
    sketches = await catalog.sketches();
    return { known: sketch ? await catalog.about(sketch) : null };
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    if (refusal.status === FORBIDDEN) {
      sketches = null;
      return { known: null, problem: sketch ? null : refusal };
    }
    return { known: null, problem: refusal };
  }
}

async function whatIsDeleted(known, question) {
  try {
    return { selection: await select(known?.dataset ?? null, question) };
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    return { selection: NOTHING, refusal };
  }
}

function showView(view, question) {
  for (const name of VIEWS) $(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    link.href = write(link.dataset.view, question);
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = TITLES[view];
}

/** Asks for a key, and begins anew with it. */
function mountKey() {
  const dialog = $("key-dialog");
  const open = (why) => {
    if (dialog.open) return;
    $("key-why").textContent = why;
    $("key").value = "";
    dialog.showModal();
  };
  $("key-open").addEventListener("click", () =>
    open(`Calls of this page are made ${hasKey() ? "with a key" : "without a key"} now. A key is kept in this tab alone, and forgotten with it.`));
  whenKeyIsNeeded((why) => open(hasKey() ? why : "The service asks for a key. It is kept in this tab alone, and forgotten with it."));
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "use" && $("key").value) useKey($("key").value);
    else if (dialog.returnValue === "forget") useKey("");
    else return;
    for (const part of [catalog, answer, influence, trust, requests]) part.forget();
    store.tell();
  });
}

for (const part of [ask, answer, influence, trust, requests]) part.mount();
mountKey();
store.follow((view, question) => void follow(view, question));
store.tell();
