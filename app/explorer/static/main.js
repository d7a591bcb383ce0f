/** The page: follows its address, and asks the API what the views show. */

import * as answer from "./answer.js";
import * as ask from "./ask.js";
import * as catalog from "./catalog.js";
import * as influence from "./influence.js";
import * as requests from "./requests.js";
import * as trust from "./trust.js";
import { VIEWS, write } from "./address.js";
import { hasKey, latest, NOT_ASKED, Refusal, useKey, whenKeyIsNeeded } from "./api.js";
import { $ } from "./dom.js";
import { NOTHING, select } from "./selection.js";
import * as store from "./store.js";

const TITLES = { ask: "Neverseen", trust: "Trust · Neverseen", requests: "Requests · Neverseen" };
const FORBIDDEN = 403;
const knowing = latest();

/** Shows a view of a question: at once what is in the address, then what the API says of it. */
async function follow(view, question) {
  showView(view, question);
  ask.expect(question);
  influence.expect(question);
  if (view === "requests") {
    void knowing(async () => requests.follow(question)); // and what the other views ask is of no interest any more
    return;
  }
  requests.leave();
  await knowing(async (signal) => {
    const { sketches, known, problem } = await whatIsKnown(question);
    if (signal.aborted) return;
    if (!question.sketch && sketches?.length) {
      store.change({ sketch: sketches[0].name });
      return;
    }
    if (view === "trust") {
      await trust.follow(question, known, sketches, problem);
      return;
    }
    const row = known?.row;
    if (row && question.version === null && (question.added.length || question.kept.length)) {
      store.change({ version: row.number, verification: question.verification }); // units have other names in another dataset
      return;
    }
    ask.follow(question, known, sketches, problem);
    if (problem && sketches !== null) { // there is no such sketch or version, and nothing to ask of it
      void answer.follow(question, null, NOTHING);
      influence.forget();
      await ask.select(NOTHING, signal);
      return;
    }
    const selection = await select(row ? row.dataset : null, question, signal);
    const version = row ? row.number : question.version;
    void answer.follow(question, version, selection);
    void influence.follow(question, version, selection, known?.dataset?.unit_count);
    await ask.select(selection, signal);
  });
}

/**
 * What the catalog says of the question's version: {sketches, known, problem}. sketches is null where the key may not
 * read it, which can still ask about what it can name.
 */
async function whatIsKnown({ sketch, version }) {
  let sketches = [];
  try {
    sketches = await catalog.sketches();
    const known = sketch ? await catalog.about(sketch, version) : null;
    if (known && !known.row) return { sketches, known, problem: new Refusal(NOT_ASKED, [noVersion(sketch, version, known.versions)]) };
    return { sketches, known };
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal;
    if (refusal.status === FORBIDDEN) return { sketches: null, known: null, problem: sketch ? null : refusal };
    return { sketches, known: null, problem: refusal };
  }
}

function noVersion(sketch, version, versions) {
  if (version === null) return `The sketch ‘${sketch}’ has no current version.`;
  return `The sketch ‘${sketch}’ has no version ${version}; there ${versions.length === 1 ? "is" : "are"} ${versions.map((one) => one.number).join(", ")}.`;
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
    dialog.returnValue = ""; // of the time before, which Escape leaves there
    dialog.showModal();
  };
  $("key-open").addEventListener("click", () =>
    open(`Calls of this page are made ${hasKey() ? "with a key" : "without a key"} now. A key is kept for this tab's session, and nowhere else.`));
  whenKeyIsNeeded((why) => open(hasKey() ? why : "The service asks for a key. It is kept for this tab's session, and nowhere else."));
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "use" && $("key").value) useKey($("key").value);
    else if (dialog.returnValue === "forget") useKey("");
    else return;
    for (const part of [catalog, ask, answer, influence, trust, requests]) part.forget();
    store.tell();
  });
}

for (const part of [ask, answer, influence, trust, requests]) part.mount();
$("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the question, and no place on the page
  $("main").focus();
});
mountKey();
store.follow((view, question) => void follow(view, question));
store.tell();
