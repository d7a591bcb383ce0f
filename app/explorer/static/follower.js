/** What follows a question: asks the API where it is another one, and shows what comes back, or why nothing does. */

import { busy, latest } from "./api.js";
import { showProblem } from "./dom.js";
import { tell } from "./store.js";

/**
 * A part of the page that shows the answer to one thing at a time.
 *
 * ask(body, signal) asks; draw(answer, body) shows what was answered, and clear() nothing. While another question is
 * under way, the answer to the one before stays. A refusal clears it, and is told where `problem` is; then the same may
 * be asked again.
 */
export function follower({ place, problem, ask, draw, clear }) {
  const asking = latest();
  let asked = ""; // the body that was asked last

  /** Gives up what is under way; whatever is followed next is asked, even if it is the same. */
  const giveUp = () => {
    asking.stop();
    asked = "";
  };

  /** Forgets what was answered, as another key may be answered otherwise. */
  const forget = () => {
    giveUp();
    clear();
  };

  /** Asks where this is another body than before; null where there is nothing to ask. */
  const follow = async (body) => {
    const text = JSON.stringify(body);
    if (text === asked) return;
    asked = text;
    if (body === null) {
      asking.stop();
      clear();
      return;
    }
    try {
      const answer = await busy(place, asking((signal) => ask(body, signal)));
      if (answer) draw(answer, body);
    } catch (refusal) {
      if (text !== asked) return; // there is another question already
      forget();
      showProblem(problem, refusal, tell);
    }
  };

  return { follow, giveUp, forget };
}
