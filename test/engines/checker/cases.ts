// What the checker has to show of an engine: whatever happens, the history of all processes is one that a lock may have. And where
// something is left out that this rests on, the checker finds it.
//
// PROCLOCK_CHECKER_S is for how many seconds it searches. PROCLOCK_CHECKER_SEED rolls the same dice; what the machine makes of
// them is never quite the same.
import { SharedLock, type Space } from '../../../lib/remote';
import { type History, judge } from './history';
import { check, type Field } from './run';

const SECONDS = process.env.PROCLOCK_CHECKER_S;
const SEED = Number(process.env.PROCLOCK_CHECKER_SEED ?? Date.now() % 1_000_000);
/** For how long a run searches at most for what has been left out. Mostly the first fault finds it. */
const MUTANT_SECONDS = 60;
/** What a test takes besides its search. */
const BESIDES_MS = 120_000;
export const MUTANT_MS_MAX = MUTANT_SECONDS * 1000 + BESIDES_MS;

/** `describe`, if somebody has asked for the checker. */
export const describeIfAsked = SECONDS === undefined ? describe.skip : describe;

/** @param open a space without a proxy. @param byDefault seconds */
export function findsNothing(field: Field, open: () => Promise<Space>, byDefault: number): void {
  const seconds = Number(SECONDS ?? byDefault);

  test(
    `finds nothing in ${seconds} s (PROCLOCK_CHECKER_SEED=${SEED})`,
    async () => {
      const seen = await check(field, { seconds, seed: SEED });
      expect(seen.failures).toEqual([]);
      expect(judge(seen)).toEqual([]);
      expect(seen.entries.length).toBeGreaterThan(seconds);
      // Whoever was killed is in nobody's way, and who went in good order has left nothing.
      const space = await open();
      for (const name of new Set(seen.entries.map((entry) => entry.name))) {
        const guard = await new SharedLock(name, { space }).exclusive({ timeout: 10_000 });
        await guard.release();
      }
      expect(await space.query()).toEqual({ held: [], pending: [] });
    },
    seconds * 1000 + BESIDES_MS,
  );
}

export function findsWhatIsLeftOut(field: Field): void {
  test(
    'finds it where nobody gives up by its own clock',
    async () => expect(await wrongWithout(field, 'no deadline')).toMatch(/H1/),
    MUTANT_MS_MAX,
  );
}

/** What is found wrong where something is left out. @param mutant of main.js */
export async function wrongWithout(field: Field, mutant?: string): Promise<string> {
  const isEnough = (seen: History) => judge(seen).some((wrong) => wrong.startsWith('H1'));
  const run = { seconds: MUTANT_SECONDS, seed: SEED, mutant, stallsOnly: true, isEnough };
  return judge(await check(field, run)).join('\n');
}
