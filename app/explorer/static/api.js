/** The public API, and nothing else. What it refuses is thrown as sentences. */

const STORED = "neverseen-key";
const UNAUTHORISED = 401;
const PASSING = [0, 429, 502, 503, 504]; // of refusals: the same question may be answered a moment later
const [LOOK_AGAIN, LONGEST_WAIT] = [400, 5000]; // milliseconds

let key = sessionStorage.getItem(STORED) ?? "";
const needsKey = new EventTarget();

/** Calls back, with the reason, whenever a call was refused for want of a valid key. */
export const whenKeyIsNeeded = (callback) => needsKey.addEventListener("needed", (event) => callback(event.detail));

/** Whether calls are made with a key. */
export const hasKey = () => key !== "";

/** Makes calls with another key from now on; empty is none. It lives as long as this tab's session. */
export function useKey(text) {
  key = text.trim();
  if (key) sessionStorage.setItem(STORED, key);
  else sessionStorage.removeItem(STORED);
}

/** The status of a refusal of our own. */
export const NOT_ASKED = -1;

/** Why a call came to nothing. */
export class Refusal extends Error {
  /** status: of HTTP, 0 where nobody answered, NOT_ASKED where nobody was asked; sentences: what to tell the person. */
  constructor(status, sentences) {
    super(sentences.join(" "));
    this.status = status;
    this.sentences = sentences;
  }

  /** Whether it may be answered a moment later. */
  get passes() {
    return PASSING.includes(this.status);
  }
}

/** A part of a path; "." and ".." would lead elsewhere. */
export function part(name) {
  if (/^\.{1,2}$/.test(name)) throw new Refusal(NOT_ASKED, [`Nothing is named “${name}”.`]);
  return encodeURIComponent(name);
}

/** Asks, and gives the answer; throws a Refusal, or an AbortError where the signal says so. */
export async function call(method, path, { body, query, signal, as = "json" } = {}) {
  const headers = {};
  const own = key;
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const address = query ? `${path}?${new URLSearchParams(query)}` : path;
  let response;
  try {
    response = await fetch(address, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
    if (response.ok) return await response[as]();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (/[^\x20-\x7e]/.test(key)) throw new Refusal(NOT_ASKED, ["The key holds characters that no key has."]);
    throw new Refusal(0, ["The service doesn’t answer, or not in full. Is it running?"]);
  }
  const refusal = await refusalOf(response);
  if (refusal.status === UNAUTHORISED && key === own) needsKey.dispatchEvent(new CustomEvent("needed", { detail: refusal.message }));
  throw refusal;
}

export const get = (path, query, options = {}) => call("GET", path, { query, ...options });
export const post = (path, body, options = {}) => call("POST", path, { body, ...options });

async function refusalOf(response) {
  const problem = await response.json().catch(() => null);
  if (typeof problem?.detail !== "string") {
    return new Refusal(response.status, [`The service answered with status ${response.status}, and didn’t say why.`]);
  }
  const faults = (problem.errors ?? []).map((fault) => `${place(fault.location)}: ${fault.message}.`);
  return new Refusal(response.status, faults.length ? faults : [problem.detail]);
}

/** Where a body is wrong, without the API's own word for it. */
const place = (location) => location.replace(/^(body|query|path)\.?/, "") || "The question";

/**
 * Runs one thing at a time: what is begun later aborts what was begun before, whose answer then never arrives. So does
 * stop(), where what is under way is of no interest any more.
 */
export function latest() {
  let running = null;
  const run = async (work) => {
    run.stop();
    const own = (running = new AbortController());
    try {
      const answer = await work(own.signal);
      return own.signal.aborted ? undefined : answer;
    } catch (error) {
      if (own.signal.aborted) return undefined;
      throw error;
    } finally {
      if (running === own) running = null;
    }
  };
  run.stop = () => running?.abort();
  return run;
}

/**
 * Looks again and again until done(found): ever less often, not while nobody sees the page, and past what passes.
 * seen is called with everything that is found.
 */
export async function watched(look, done, seen, signal) {
  for (let wait = LOOK_AGAIN; ; wait = Math.min(1.5 * wait, LONGEST_WAIT)) {
    const found = document.hidden ? null : await look().catch((refusal) => {
      if (refusal.passes) return null;
      throw refusal;
    });
    signal.throwIfAborted();
    if (found) seen(found);
    if (found && done(found)) return found;
    await new Promise((resolve) => setTimeout(resolve, wait));
    signal.throwIfAborted();
  }
}

/** Marks a place as busy once that takes longer than an eye's blink. */
export async function busy(element, work) {
  const slow = setTimeout(() => element.setAttribute("aria-busy", "true"), 150);
  try {
    return await work;
  } finally {
    clearTimeout(slow);
    element.removeAttribute("aria-busy");
  }
}
