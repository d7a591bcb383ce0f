/** The question that all views share. It lives in the page's address: what is there is all there is. */

import { parse, write } from "./address.js";

let state = parse(location.hash);
const followers = [];

/** What a verification is of: where one of these changes, it is of another question. */
const DELETION = ["sketch", "version", "rules", "added", "kept"];

export const question = () => state.question;

/** Calls back with every change of the view or the question. */
export const follow = (callback) => followers.push(callback);

/** Changes parts of the question; the address follows without a new entry in the history. */
export function change(parts) {
  const other = DELETION.some((name) => name in parts) ? { verification: "" } : {};
  state = { view: state.view, question: { ...state.question, ...other, ...parts } };
  history.replaceState(null, "", write(state.view, state.question));
  tell();
}

export function tell() {
  for (const callback of followers) callback(state.view, state.question);
}

window.addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#/") || write(state.view, state.question) === location.hash) return;
  state = parse(location.hash);
  tell();
});
