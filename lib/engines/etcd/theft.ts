// A theft, step by step. Who holds the lock is looked at before, since a transaction can not do something for each key that it
// finds; so somebody may have got in since, and then there is another look. From the second one on nobody new gets in: the
// thief stands ahead of the queue, and bars it. Whoever gives up in between stands back.
import { lastPart, type SpaceKeys } from './keys';
import type { Lease } from './lease';
import {
  bar,
  type Entry,
  lookAtHolders,
  ROBBED_MAX,
  rob,
  standBack,
  steal,
  type Victim,
  victimOf,
} from './queue';
import type { Reply, Txn } from './txn';

/** What a theft needs of the place that it is for. */
export interface Thief {
  readonly entry: Entry;
  /** As others are to see it. */
  readonly name: string;
  readonly lease: Lease;
  readonly keys: SpaceKeys;
  isWanted(): boolean;
  transact(txn: Txn): Promise<Reply>;
  /** The answer tells which of these were robbed. */
  robbed(victims: readonly Victim[], reply: Reply): void;
}

/** @returns what tells that the lock was granted, now or before; `undefined` if it is not wanted any more */
export async function takeByForce(thief: Thief): Promise<Reply | undefined> {
  const { entry, keys, lease, name } = thief;
  for (let looks = 1; ; looks++) {
    const seen = await lease.read('look who holds a lock', lookAtHolders(entry));
    // Nobody is robbed for one that has given up.
    if (!thief.isWanted()) {
      if (looks > 1) await thief.transact(standBack(entry));
      return undefined;
    }
    const victims = seen.all('holders').map(({ key }) => victimOf(lastPart(key), keys));
    if (victims.length > ROBBED_MAX) {
      thief.robbed(victims, await thief.transact(rob(entry, victims.slice(0, ROBBED_MAX), name)));
    } else {
      const reply = await thief.transact(steal(entry, victims, seen.revision, name));
      thief.robbed(victims, reply);
      const was = (key: string) => reply.first(key) !== undefined;
      if (reply.did('free') || was('own hold') || was('own mail')) return reply;
    }
    await thief.transact(bar(entry));
  }
}
