// What a checker saw, and the judgement of it.
//
// An entry is one hold, as its holder saw it: from when it had the guard until the last time that it looked at `guard.lost`, and
// that had not aborted. In between it was certain, by all that it could know. Times are those of one clock of the machine.
//
//   H1  While one holds exclusively nobody else holds: two such intervals have no time in common.
//   H2  Of two exclusive holds, the one that was granted later has the greater token.
//   H3  A shared hold has the token of the last exclusive grant: it is not smaller than that of any exclusive hold before it,
//       and smaller than that of any behind it.
//
// An engine can end a hold before the holder can hear of that in two cases, and these are no fault: the lock was stolen, or its
// session was ended by the engine's side. Who does either knows when: the interval is cut at that time. What the holder heard in
// the end tells nothing: one whose connection is stalled does not hear that it was robbed.
//
// It is the session that counts, and not when its holder heard of the grant. A grant and the end of the session behind it are
// still on their way, or not yet read, when the engine has long given the lock to the next one. So a holder can hear of its
// grant, and be certain for some milliseconds, after all of that: the next thing that it reads is that the session is over.

export interface Entry {
  /** Of the lock. */
  readonly name: string;
  readonly process: number;
  readonly mode: 'shared' | 'exclusive';
  readonly token: bigint;
  /** When the session that it belongs to began to be opened. Times are in milliseconds. */
  readonly session: number;
  readonly from: number;
  readonly to: number;
  /** Whether it ended otherwise than by its holder, or its holder was killed. */
  readonly lost: boolean;
}

export interface Theft {
  readonly name: string;
  readonly asked: number;
  /** Of the thief's hold; undefined if it never heard of that. */
  readonly token: bigint | undefined;
}

/** When the sessions that a process had then were ended by the engine's side: not before `at`, nor were any begun after `until`. */
export interface Cut {
  readonly process: number;
  readonly at: number;
  readonly until: number;
}

export interface History {
  readonly entries: readonly Entry[];
  readonly thefts: readonly Theft[];
  readonly cuts: readonly Cut[];
}

/** What is wrong with it, in words. */
export function judge(history: History): string[] {
  const certain = history.entries
    .map((entry) => ({ ...entry, to: Math.min(entry.to, endOf(entry, history)) }))
    .filter(({ from, to }) => from < to);
  const wrong: string[] = [];
  for (const name of new Set(certain.map((entry) => entry.name))) {
    const holds = certain.filter((entry) => entry.name === name).sort((one, other) => one.from - other.from);
    wrong.push(...overlaps(holds), ...tokens(holds));
  }
  return wrong;
}

/** For so long at most something that a thief has asked for, who was not answered, is on its way. */
const ON_ITS_WAY_MS = 10_000;

/** When somebody else may have ended it at the earliest. */
function endOf({ name, process, token, session, from, to, lost }: Entry, { thefts, cuts }: History): number {
  if (!lost) return to;
  const stolen = thefts.filter((theft) => {
    if (theft.name !== name) return false;
    // A theft may be heard of before the grant is, but its token is greater.
    return theft.token === undefined ? theft.asked > from - ON_ITS_WAY_MS : theft.token > token;
  });
  const cut = cuts.filter((one) => one.process === process && one.until >= session);
  return Math.min(to, ...stolen.map(({ asked }) => asked), ...cut.map(({ at }) => at));
}

/** @param holds in their order */
function overlaps(holds: readonly Entry[]): string[] {
  const wrong: string[] = [];
  let last: Entry | undefined; // of all that began before, the one that ends last
  let lastExclusive: Entry | undefined;
  const later = (one: Entry | undefined, other: Entry) =>
    one === undefined || other.to > one.to ? other : one;
  for (const hold of holds) {
    const before = hold.mode === 'exclusive' ? last : lastExclusive;
    if (before !== undefined && before.to > hold.from) wrong.push(`H1: ${shown(before)} and ${shown(hold)}`);
    last = later(last, hold);
    if (hold.mode === 'exclusive') lastExclusive = later(lastExclusive, hold);
  }
  return wrong;
}

/** @param holds in their order */
function tokens(holds: readonly Entry[]): string[] {
  const wrong: string[] = [];
  let greatest: Entry | undefined;
  for (const hold of holds) {
    if (greatest !== undefined) {
      const grows = hold.mode === 'exclusive' ? hold.token > greatest.token : hold.token >= greatest.token;
      if (!grows)
        wrong.push(`${hold.mode === 'exclusive' ? 'H2' : 'H3'}: ${shown(greatest)} before ${shown(hold)}`);
    }
    if (greatest === undefined || hold.token > greatest.token) greatest = hold;
  }
  return wrong;
}

function shown({ name, process, mode, token, session, from, to, lost }: Entry): string {
  const what = `${name} of process ${process}, ${mode}, token ${token}`;
  return `${what}, ${from.toFixed(1)} to ${to.toFixed(1)}${lost ? ' (lost)' : ''}, session of ${session.toFixed(1)}`;
}
