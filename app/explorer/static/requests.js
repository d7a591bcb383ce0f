/** Erasure requests: their state and deadlines, and the evidence to read, to print and to keep. */

import { call, get, latest } from "./api.js";
import { $, h, show, showProblem, table } from "./dom.js";
import { change, question } from "./store.js";
import { count, fromNow, moment, quoted, shown } from "./words.js";

const PAGE = 20;
const LOOK_AGAIN = 2000;
const listing = latest();
const reading = latest();

let asked = "";
let opened = "";
let offset = 0;

export function mount() {
  $("requests-form").addEventListener("submit", (event) => {
    event.preventDefault();
    offset = 0;
    asked = "";
    change({ requests: { state: $("requests-state").value, late: $("requests-late").checked, caller: $("requests-caller").value, id: "" } });
  });
}

export function forget() {
  asked = opened = "";
}

/** Lets go of what is watched, as another view is shown. */
export function leave() {
  opened = "";
  void reading(async () => undefined);
}

export function follow({ requests }) {
  $("requests-state").value = requests.state;
  $("requests-late").checked = requests.late;
  $("requests-caller").value = requests.caller;
  void list(requests);
  void open(requests);
}

async function list(requests) {
  const { state, late, caller } = requests;
  const filter = { limit: PAGE, offset, ...(state && { state }), ...(late && { late: true }), ...(caller && { caller_id: caller }) };
  const wanted = JSON.stringify(filter);
  if (wanted === asked) return mark(requests.id);
  asked = wanted;
  try {
    const page = await listing((signal) => get("/erasure-requests", filter, { signal }));
    if (!page) return undefined;
    showProblem($("requests-problem"), null);
    show($("requests-list"), listed(page, requests));
    mark(requests.id);
  } catch (refusal) {
    show($("requests-list"));
    showProblem($("requests-problem"), refusal);
  }
  return undefined;
}

function mark(id) {
  for (const button of $("requests-list").querySelectorAll("button[value]")) {
    if (button.value === id) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

function listed(page, requests) {
  if (!page.total) return h("p.hint", {}, "There is no such request.");
  const to = (where) => {
    offset = where;
    void list(requests);
  };
  return [
    h("p.hint", { role: "status" }, `${count(page.total, "request")}, the newest first.`),
    table("Erasure requests", [["Caller’s id"], ["From"], ["State"], ["Units", "number"], ["Due"]], page.items.map((one) => [
      h("button.link", { type: "button", value: one.id, onclick: () => change({ requests: { ...requests, id: one.id } }) }, quoted(one.caller_id, 40)),
      quoted(one.source, 24),
      stateOf(one),
      one.units === null ? "–" : String(one.units),
      due(one),
    ])),
    page.total > PAGE && h("div.row.pager", {},
      h("button.quiet", { type: "button", disabled: page.offset === 0, onclick: () => to(Math.max(0, page.offset - PAGE)) }, "Newer"),
      h("span.hint", {}, `${page.offset + 1} to ${page.offset + page.items.length} of ${page.total.toLocaleString("en")}`),
      h("button.quiet", { type: "button", disabled: page.offset + PAGE >= page.total, onclick: () => to(page.offset + PAGE) }, "Older")),
  ];
}

function stateOf({ state, stage, late }) {
  const words = state.replace("_", " ") + (stage ? `, ${stage}` : "");
  return h(`span.state.${state}`, {}, words, late && h("strong.warning", {}, " late"));
}

function due({ due_at: at, state }) {
  const open = state === "pending" || state === "in_progress" || state === "failed";
  return [moment(at), open && h("small", {}, ` ${fromNow(at)}`)].filter(Boolean);
}

const OUTCOMES = { answered: "answered", no_match: "nobody is known by these identities" };

async function open({ id }) {
  if (id === opened) return;
  opened = id;
  if (!id) {
    void reading(async () => undefined);
    show($("request"), h("p.hint", {}, "Choose a request to see how far it is, and its evidence."));
    return;
  }
  try {
    await reading((signal) => watch(id, signal));
  } catch (refusal) {
    showProblem($("request"), refusal);
  }
}

/** Shows a request, and again whenever it is further, until nothing more will come. */
async function watch(id, signal) {
  for (let before = "", last = false; !last && !signal.aborted; ) {
    const one = await get(`/erasure-requests/${encodeURIComponent(id)}`, undefined, { signal });
    last = one.state !== "pending" && one.state !== "in_progress";
    const now = JSON.stringify(one);
    if (now !== before) {
      const page = one.evidence ? await call("GET", `${one.evidence}.html`, { signal, as: "text" }) : null;
      const file = one.evidence ? await call("GET", one.evidence, { signal, as: "blob" }) : null;
      if (!signal.aborted) show($("request"), details(one), page && evidence(one, page, file));
      if (before) {
        asked = ""; // the list tells the state before
        void list(question().requests);
      }
    }
    before = now;
    if (!last) await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
  }
}

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
    h("h2", {}, "Request ", quoted(one.caller_id, 60)),
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
    frame,
    h("p.hint", {}, "The file is what is signed, and this sheet shows what it says. ", h("code", {}, `neverseen privacy verify ${name}`), " checks it, without this service."));
}
