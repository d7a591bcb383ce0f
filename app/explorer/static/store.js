/** The question that all views share. It lives in the page's address: what is there is all there is. */

import { parse, write } from "./address.js";

let state = parse(location.hash);
const followers = [];

export const question = () => state.question;
export const view = () => state.view;

/** Calls back with every change of the view or the question. */
export const follow = (callback) => followers.push(callback);

/** Changes parts of the question; the address follows without a new entry in the history. */
export function change(parts) {
  state = { view: state.view, question: { ...state.question, ...parts } };
  history.replaceState(null, "", write(state.view, state.question));
  tell();
}

/** Goes to another view with the same question, as a step that the browser can go back from. */
export function go(to) {
  location.hash = write(to, state.question);
}

export function tell() {
  for (const callback of followers) callback(state.view, state.question);
}

window.addEventListener("hashchange", () => {
  if (write(state.view, state.question) === location.hash) return;
  state = parse(location.hash);
  tell();
});
