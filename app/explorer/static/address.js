/**
 * The question as it stands in the page's address, behind the #, which browsers send to nobody.
 *
 *   #/ask?sketch=names&loss=max&prompt=qu&completion=inn&next=q&contains=x&subset=has-z&add=17&keep=9&confidence=0.9
 *
 * `loss`, `completion` (after the `prompt` before it) and `next` are measurements in their order. `contains`, `matches`
 * and `subset` are rules whose units are deleted together; `add` and `keep` are units besides and except. `of` is the
 * number of the measurement that units are compared by, `verification` the id of one of this deletion. `samples`, `seed`
 * and `beginning` are of texts to draw, `calibrated` is the text whose loss the view of trust is about, and `state`,
 * `late`, `caller`, `order`, `from` and `request` are of the view of requests.
 */

export const VIEWS = ["ask", "trust", "requests"];

const RULES = ["contains", "matches", "subset"];
const MOST_RULES = 20; // each is a question to the service, which a link makes its reader ask
const MOST_MEASUREMENTS = 64;
const CONFIDENCE = 0.95;

/** A question of nothing. */
export const nothing = () => ({
  sketch: "", version: null, measurements: [], rules: [], added: [], kept: [],
  confidence: CONFIDENCE, estimator: "auto", degree: "auto", of: 0, verification: "", samples: null, calibrated: "", left: 0,
  requests: { state: "", late: false, caller: "", order: "", offset: 0, id: "" },
});

/** The view and the question that an address holds; what it doesn't understand is left out, and counted where it is too much. */
export function parse(fragment) {
  const [, path = "", search = ""] = /^#?\/?([a-z]*)\??(.*)$/s.exec(fragment) ?? [];
  const question = nothing();
  const [added, kept] = [new Set(), new Set()]; // none twice
  let prompt = "";
  for (const [name, value] of new URLSearchParams(search)) {
    if (name === "sketch") question.sketch = value;
    else if (name === "version") question.version = natural(value);
    else if (name === "loss") question.measurements.push({ kind: "loss", text: value });
    else if (name === "prompt") prompt = value;
    else if (name === "completion") {
      question.measurements.push({ kind: "log_probability", prompt, completion: value });
      prompt = "";
    } else if (name === "next") question.measurements.push({ kind: "next_token", prompt: value });
    else if (RULES.includes(name)) question.rules.push({ kind: name, value });
    else if (name === "add") added.add(value);
    else if (name === "keep") kept.add(value);
    else if (name === "of") question.of = natural(value) ?? 0;
    else if (name === "verification") question.verification = value;
    else if (name === "confidence") question.confidence = Number(value) || CONFIDENCE;
    else if (name === "estimator") question.estimator = value;
    else if (name === "degree") question.degree = natural(value) ?? "auto";
    else if (name === "samples") question.samples = { count: natural(value) ?? 8, seed: 0, prompt: "" };
    else if (name === "seed" && question.samples) question.samples.seed = Math.trunc(Number(value)) || 0;
    else if (name === "beginning" && question.samples) question.samples.prompt = value;
    else if (name === "calibrated") question.calibrated = value;
    else if (name === "state") question.requests.state = value;
    else if (name === "late") question.requests.late = true;
    else if (name === "caller") question.requests.caller = value;
    else if (name === "order") question.requests.order = value === "deadline" ? value : "";
    else if (name === "from") question.requests.offset = (natural(value) ?? 1) - 1;
    else if (name === "request") question.requests.id = value;
  }
  const [measurements, rules] = [question.measurements.slice(0, MOST_MEASUREMENTS), question.rules.slice(0, MOST_RULES)];
  const left = question.measurements.length - measurements.length + (question.rules.length - rules.length);
  Object.assign(question, { measurements, rules, left, added: [...added], kept: [...kept] });
  if (!question.measurements.length) question.measurements.push({ kind: "loss", text: "" }); // to be typed
  return { view: VIEWS.includes(path) ? path : "ask", question };
}

/** The address that holds a view and a question. */
export function write(view, question) {
  const search = new URLSearchParams();
  if (question.sketch) search.append("sketch", question.sketch);
  if (question.version !== null) search.append("version", question.version);
  for (const { kind, text, prompt, completion } of question.measurements) {
    if (kind === "loss") {
      if (text) search.append("loss", text);
    } else if (kind === "next_token") search.append("next", prompt);
    else {
      if (prompt) search.append("prompt", prompt);
      search.append("completion", completion);
    }
  }
  for (const { kind, value } of question.rules) search.append(kind, value);
  for (const unit of question.added) search.append("add", unit);
  for (const unit of question.kept) search.append("keep", unit);
  if (question.confidence !== CONFIDENCE) search.append("confidence", question.confidence);
  if (question.estimator !== "auto") search.append("estimator", question.estimator);
  if (question.degree !== "auto") search.append("degree", question.degree);
  if (question.of) search.append("of", question.of);
  if (question.verification) search.append("verification", question.verification);
  if (question.samples) {
    search.append("samples", question.samples.count);
    if (question.samples.seed) search.append("seed", question.samples.seed);
    if (question.samples.prompt) search.append("beginning", question.samples.prompt);
  }
  if (question.calibrated) search.append("calibrated", question.calibrated);
  const { state, late, caller, order, offset, id } = question.requests;
  if (view === "requests") {
    if (state) search.append("state", state);
    if (late) search.append("late", "true");
    if (caller) search.append("caller", caller);
    if (order) search.append("order", order);
    if (offset) search.append("from", offset + 1);
    if (id) search.append("request", id);
  }
  return `#/${view}${search.size ? "?" : ""}${search}`;
}

function natural(text) {
  const number = Number(text);
  return Number.isInteger(number) && number > 0 ? number : null;
}
