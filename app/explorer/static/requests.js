/** Erasure requests: their state and deadlines, and the evidence to read, to print and to keep. */

import { call, get, latest, part, watched } from "./api.js";
import { $, h, isAt, pager, show, showProblem, sync, table, taken } from "./dom.js";
import { change, question, tell } from "./store.js";
import { count, fromNow, moment, quoted, shown } from "./words.js";

const PAGE = 20;
const listing = latest();
const reading = latest();

let asked = "";
let opened = null; // the request that is shown, "" where none is chosen
let drawn = null; // the request that stands there
let shownNow = Promise.resolve(); // when the request that was chosen stands there
let listedNow = Promise.resolve(); // when the list that was asked for does

export function mount() {
  $("requests-form").addEventListener("submit", (event) => {
    event.preventDefault();
    asked = "";
    change({ requests: {
      state: $("requests-state").value, late: $("requests-late").checked, caller: taken($("requests-caller")),
      order: $("requests-order").value, offset: 0, id: "",
    } });
  });
}

/** Lets go of what is watched, as another view is shown, or another key is used. */
export function leave() {
  listing.stop();
  reading.stop();
  asked = "";
  opened = null;
}

/** Forgets what stands there, as another key may see something else. */
export function forget() {
  leave();
  drawn = null;
  for (const id of ["requests-list", "requests-problem", "request", "request-said"]) show($(id));
}

export function follow({ requests }) {
  sync($("requests-state"), requests.state);
  sync($("requests-order"), requests.order);
  if ($("requests-late").dataset.said !== String(requests.late)) $("requests-late").checked = requests.late;
  $("requests-late").dataset.said = requests.late;
  sync($("requests-caller"), requests.caller);
  listedNow = list(requests);
  void open(requests);
}

async function list(requests) {
  const { state, late, caller, order, offset, id } = requests;
  const filter = {
    limit: PAGE, offset, ...(state && { state }), ...(late && { late: true }), ...(caller && { caller_id: caller }), ...(order && { order }),
  };
  const wanted = JSON.stringify(filter);
  if (wanted === asked) {
    mark(id);
    return;
  }
  asked = wanted;
  try {
    const page = await listing((signal) => get("/erasure-requests", filter, { signal }));
    if (!page) return;
    if (!page.items.length && offset) { // there were more when the address was written
      change({ requests: { ...question().requests, offset: PAGE * Math.max(0, Math.ceil(page.total / PAGE) - 1) } });
      return;
    }
    showProblem($("requests-problem"), null);
    const { value } = $("requests-list").contains(document.activeElement) ? document.activeElement : {};
    show($("requests-list"), listed(page, order));
    mark(question().requests.id);
    if (value) $("requests-list").querySelector(`button[value="${CSS.escape(value)}"]`)?.focus();
  } catch (refusal) {
    asked = "";
    show($("requests-list"));
    showProblem($("requests-problem"), refusal, tell);
  }
}

function mark(id) {
  for (const button of $("requests-list").querySelectorAll("button[value]")) {
    if (button.value === id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

function listed(page, order) {
  if (!page.total) return h("p.hint", {}, "There is no such request.");
  const by = order === "deadline" ? "the next deadline first, and what is done or cancelled last" : "the newest first";
  const turn = async (offset) => {
    change({ requests: { ...question().requests, offset } });
    await listedNow;
  };
  return [
    h("p.hint", { role: "status" }, `${count(page.total, "request")}, ${by}.`),
    table("Erasure requests", [["Caller’s id"], ["From"], ["State"], ["Units", "number"], ["Due"]], page.items.map((one) => [
      h("button.link", { type: "button", value: one.id, onclick: () => choose(one.id) }, quoted(one.caller_id, 40)),
      quoted(one.source, 24),
      stateOf(one),
      one.units === null ? "–" : String(one.units),
      due(one),
    ])),
    pager($("requests-list"), page, PAGE, order === "deadline" ? ["Sooner", "Later"] : ["Newer", "Older"], turn),
  ];
}

/** Opens a request, and goes to it: on a narrow screen it stands below the list. */
async function choose(id) {
  if (opened === id && $("request").querySelector(".problem")) opened = null; // once more
  change({ requests: { ...question().requests, id } });
  await shownNow;
  if (question().requests.id === id && isAt($("requests-list"))) $("request-title")?.focus();
}

const stateIn = ({ state, stage }) => state.replace("_", " ") + (stage ? `, ${stage}` : "");

function stateOf(one) {
  const { state, late } = one;
  return h(`span.state.${state}`, {}, stateIn(one), late && h("strong.warning", {}, " late"));
}

function due({ due_at: at, state }) {
  const open = state === "pending" || state === "in_progress" || state === "failed";
  return [moment(at), open && h("small", {}, ` ${fromNow(at)}`)].filter(Boolean);
}

const OUTCOMES = { answered: "answered", no_match: "nobody is known by these identities" };

async function open({ id }) {
  if (id === opened) return;
  opened = id;
  if (drawn !== id) {
    drawn = null;
    for (const place of ["request", "request-said"]) show($(place));
  }
  if (!id) {
    reading.stop();
    show($("request"), h("p.hint", {}, "Choose a request to see how far it is, and its evidence."));
    return;
  }
  let first;
  shownNow = new Promise((resolve) => (first = resolve));
  let before = "";
  const seen = (one) => {
    const now = JSON.stringify(one);
    if (now === before) return;
    const isThere = $("request").contains(document.activeElement);
    show($("request"), details(one));
    if (isThere) $("request-title").focus();
    drawn = id;
    first();
    if (before) {
      $("request-said").textContent = `The request is ${stateIn(one)} now.`;
      asked = ""; // the list tells the state before
      void list(question().requests);
    }
    before = now;
  };
  try {
    await reading(async (signal) => {
      const one = await watched(() => get(`/erasure-requests/${part(id)}`, undefined, { signal }), isOver, seen, signal);
      if (!one.evidence) return;
      const [page, file] = await Promise.all([
        call("GET", `${one.evidence}.html`, { signal, as: "text" }), call("GET", one.evidence, { signal, as: "blob" }),
      ]);
      if (!signal.aborted) $("request").append(evidence(one, page, file));
    });
  } catch (refusal) {
    opened = null;
    showProblem(drawn === id ? $("request").appendChild(h("div")) : $("request"), refusal, tell);
  } finally {
    first();
  }
}

const isOver = ({ state }) => state !== "pending" && state !== "in_progress";

function details(one) {
  const rows = [
    ["Ours", h("code", {}, one.id)],
    ["Came by", quoted(one.source, 40), ` (${shown(one.protocol, 40)})`, one.regulation ? `, under ${shown(one.regulation, 24).toUpperCase()}` : ""],
    ["Asked to", one.mode, `; report `, quoted(one.report, 40), one.verify ? "; verified by retraining" : ""],
    ["State", stateOf(one), one.outcome ? `: ${OUTCOMES[one.outcome]}` : ""],
    one.units === null ? null : ["Found", `${count(one.units, "unit")}, ${count(one.documents ?? 0, "document")}`],
    one.submitted_at && ["Submitted", moment(one.submitted_at)],
    ["Received", moment(one.received_at)],
    ["Due", due(one)],
    one.finished_at && ["Finished", moment(one.finished_at)],
    one.attempts > 0 && ["Attempts", `${one.attempts} came to nothing`],
  ].filter(Boolean);
  return [
    h("h2", { id: "request-title", tabindex: "-1" }, "Request ", quoted(one.caller_id, 60)),
    h("dl", {}, rows.map(([name, ...what]) => [h("dt", {}, name), h("dd", {}, ...what)])),
    one.problem && h("p.problem", {}, quoted(one.problem, 400)),
  ].filter(Boolean);
}

/** The sheet in a frame of its own, where nothing runs; printing it is what the frame is allowed to ask for. */
function evidence(one, page, file) {
  const name = `evidence-${one.id}.json`;
  const frame = h("iframe.sheet", { title: "Evidence", sandbox: "allow-same-origin allow-modals", srcdoc: page });
  const save = () => {
    const link = h("a", { href: URL.createObjectURL(file), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 0);
  };
  return h("section.evidence", { "aria-labelledby": "evidence-title" },
    h("div.row", {},
      h("h2.grow", { id: "evidence-title" }, "Evidence"),
      h("button", { type: "button", onclick: () => frame.contentWindow.print() }, "Print"),
      h("button", { type: "button", onclick: save }, "Download"),
    ),
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Sheet of the evidence" }, frame),
    h("p.hint", {}, "The file is what is signed, and this sheet shows what it says. ", h("code", {}, `neverseen privacy verify ${name}`), " checks it, without this service."));
}
