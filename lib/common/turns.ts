// Turns of the event loop, counted as far as somebody asks. What begins and ends in the same one has lasted for next to no time.
import { startSoon } from './clock';

let turn = 0;
let endIsDue = false;

/** Another number in another turn. */
export function turnNow(): number {
  if (!endIsDue) {
    endIsDue = true;
    startSoon(() => {
      endIsDue = false;
      turn++;
    });
  }
  return turn;
}
