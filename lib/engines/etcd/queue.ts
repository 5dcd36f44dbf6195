// The lock: which keys there are, and how each verb changes them in one transaction.
//
// Guarantees. What lib/remote/engine.ts wants of an engine: strict first in, first out; readers together; an upgrade ahead of
// the queue. Each grant is made by the session that it is for, once what it waits for is gone. A release wakes those that
// watch its key, which are those that it lets in (but see "whom a waiter watches").
//
// Keys of a lock, where SLOT is the session (its lease, in hexadecimal) and the number of the hold or wait in it:
//   queue/SLOT      from the question to the release. The revision at which it was created is the position in the queue.
//   exclusive/SLOT  beside it, for whoever asked for the exclusive mode; a downgrade takes it away.
//   held/SLOT       from the grant to the release. A grant creates one such key, so no two have the same revision.
//   ahead           whoever stands ahead of the queue, if anybody does: a holder that upgrades or has upgraded, a thief.
//                   Its value is the SLOT.
//   mark/SLOT       from an exclusive grant to its release or downgrade.
//   token           changed by each exclusive grant. The revision of the last change is the token.
//   flights         changed by each flight that was finished. The revision of the last change counts them.
// The first four are attached to the lease of the session, and go, all at once, when the session ends. The others are not:
// so a mark without its holder is that of one that died. Of several, the youngest counts; they go together, when an
// exclusive holder has repaired what there was. `token` and `flights` go when the last one leaves the lock: revisions grow
// on, so later tokens are greater.
//
// Who may have the lock:
//   exclusive        nobody is before it in queue/, held/ is empty, there is no `ahead`.
//   shared           nobody is before it in exclusive/, there is no `ahead`.
//   an upgrade       `ahead` is its own, and held/ has nobody else. To ask for it, there must be no `ahead`: of two that
//                    upgrade, one is refused.
//   a thief          always. It takes away what is in held/, and with `ahead` bars those who were in the queue before it; if it
//                    has to look more than once whom to rob, all others as well, and from then on.
// These are conditions of the very transaction that makes the grant. Two grants can not both be made unless each is still
// allowed after the other one:
//   - Exclusive after anything: held/ is not empty.
//   - Shared after exclusive: the exclusive one is before it in exclusive/, for a later one would not have been granted while
//     this one was in queue/; or it has `ahead`. A theft that was downgraded has neither, and is shared.
//   - A shared newcomer has the end of the queue: nobody in exclusive/ at all.
//   - Upgrade after shared, or shared after upgrade: held/, and `ahead`.
// And nobody overtakes: an exclusive wait keeps its key in queue/ and exclusive/ from the beginning, which bars all that come
// later. A downgrade leaves queue/SLOT with its old position, so exclusive waits stay behind it; after a theft, whose
// position is behind theirs, they are kept out by held/.
//
// Whom a waiter watches: the last one before it (in queue/, or in exclusive/ for a reader); else `ahead`; else one holder.
// Watches are told of deletions only, so a grant to that one wakes nobody. When it goes, the conditions are tried anew, and
// whoever is in the way then is watched. A wait behind a chain of others thus wakes once, when it is its turn; one that
// watches a reader among several may wake once for each of them at worst; one behind a wait that is given up wakes to watch
// another. The key may be gone before its watch has begun: so it is looked for once more then, and nothing is missed.
//
// What a lost answer leaves. A question whose answer was lost may have been carried out, or may be so later: a ghost. So
// each transaction has the condition that the key of its session was last changed at a certain revision. After a lost
// answer that key is changed; when that is known to be done, the lost question has been carried out, or never will be.
// Then it is asked again, and each transaction here finds its own keys if it was carried out before: an acquire is in
// queue/, a grant is in held/, a release is not any more, and what was granted and robbed since has mail. Nothing that others
// can see is done twice.
//
// What a refusal leaves: perhaps all that was asked for, since etcd looks once more for space when a change has been made. So
// whoever takes back what was refused takes back what may have come of it; who asks again finds its own keys, as above.
//
// What the end of a lease leaves: the waits are gone, whoever watched them wakes; the exclusive hold leaves its mark. The
// session can do nothing any more: the key of the session is gone as well, and so the condition fails.
//
// What a theft leaves: word under the session of the robbed one, in the same transaction. A session watches what is under it.
import type { LockMode } from '../../common/types';
import { idOf, type LockKeys, type SpaceKeys, sessionOf } from './keys';
import {
  allCreatedAt,
  allCreatedFrom,
  either,
  exists,
  hasValue,
  type Keys,
  none,
  noneCreatedAfter,
  type Op,
  only,
  startingWith,
  type Txn,
} from './txn';

/** One hold or wait, as far as its keys go. */
export interface Entry {
  readonly keys: LockKeys;
  readonly slot: string;
  readonly lease: bigint;
  /** Where a thief leaves word that it was robbed. */
  readonly mailbox: string;
  /** As it was asked for, or is held. */
  mode: LockMode;
  /** The revision at which queue/SLOT was created; 0 until that is known. */
  position: number;
  /** The revision at which held/SLOT was created; 0 until that is known. */
  heldAt: number;
  /** What queue/SLOT and held/SLOT say, for those who ask who is there. */
  describe(mode: LockMode): string;
}

/** How many holders a thief robs in one transaction: etcd takes 128 operations at most, if it was not told otherwise. */
export const ROBBED_MAX = 10;

// ---- to get in

/** `free`: it is granted. Else, with `wait`, it is in the queue; `new`: since this very question. */
export function acquire(entry: Entry, how: 'wait' | 'try'): Txn {
  const { keys, mode } = entry;
  const isNew = [none(only(queueKey(entry))), none(only(entry.mailbox))];
  // Who holds it is in queue/ as well. A thief that bars it is not.
  const isFree = [
    none(startingWith(mode === 'exclusive' ? keys.queue : keys.exclusive)),
    none(only(keys.ahead)),
  ];
  const before: Op[] = [flights(entry), ...blockers(entry)];
  return {
    as: 'free',
    when: [...isNew, ...isFree],
    does: [...enqueue(entry), ...grant(entry)],
    otherwise: [
      {
        as: 'new',
        when: isNew,
        does: how === 'try' ? [] : [...before, ...enqueue(entry)],
        otherwise: own(entry),
      },
    ],
  };
}

/** `free`: it is granted. Else it waits on, for one of the {@link blockers}; or its keys tell that it was granted before. */
export function takeTurn(entry: Entry): Txn {
  const { keys, position } = entry;
  const turn: Txn = {
    as: 'free',
    when: [allCreatedAt(only(queueKey(entry)), position), none(only(keys.ahead)), none(only(heldKey(entry)))],
    does: grant(entry),
    otherwise: [...own(entry), ...blockers(entry), flights(entry)],
  };
  if (entry.mode === 'exclusive') {
    const isFirst = [allCreatedFrom(startingWith(keys.queue), position), none(startingWith(keys.held))];
    return { ...turn, when: [...turn.when, ...isFirst] };
  }
  const earlier = startingWith(keys.exclusive);
  return either(turn, none(earlier), allCreatedFrom(earlier, position));
}

/** To be asked before a theft: who is there. */
export function lookAtHolders({ keys }: Entry): Txn {
  return {
    as: 'looked',
    when: [],
    does: [{ as: 'holders', get: startingWith(keys.held), limit: ROBBED_MAX + 1 }],
  };
}

/** Takes the lock away from these holders, and from whoever of them stands ahead also that place. */
export function rob(entry: Entry, victims: readonly Victim[], thief: string): Txn {
  const { keys } = entry;
  const places = victims.map(({ slot }) => leaveAhead(keys, slot));
  return { as: 'robbed', when: [], does: [...robbery(entry, victims, thief), ...places] };
}

/** Nobody new gets in, unless somebody else sees to that already. To be taken back: see {@link standBack}. */
export function bar(entry: Entry): Txn {
  return { as: 'barred', when: [none(only(entry.keys.ahead))], does: [stepAhead(entry)] };
}

/** `free`: the lock was taken from these holders, and is granted. Not if there is another holder by now. */
export function steal(entry: Entry, victims: readonly Victim[], seenAt: number, thief: string): Txn {
  const { keys } = entry;
  return {
    as: 'free',
    when: [
      noneCreatedAfter(startingWith(keys.held), seenAt),
      none(only(queueKey(entry))),
      none(only(entry.mailbox)),
    ],
    does: [...robbery(entry, victims, thief), ...enqueue(entry), stepAhead(entry), ...grant(entry)],
    otherwise: own(entry),
  };
}

/** A holder that is to be robbed. */
export interface Victim {
  readonly slot: string;
  readonly lease: bigint;
  /** Where word is left for it. */
  readonly mailbox: string;
}

export function victimOf(slot: string, keys: SpaceKeys): Victim {
  return { slot, lease: idOf(sessionOf(slot)), mailbox: keys.robbed(slot) };
}

/** By which the answer tells whether that one was robbed. */
export const robberyOf = (slot: string): string => `robbed ${slot}`;

function robbery({ keys }: Entry, victims: readonly Victim[], thief: string): Op[] {
  return victims.map(({ slot, lease, mailbox }) => ({
    as: robberyOf(slot),
    when: [exists(`${keys.held}${slot}`)],
    does: [
      ...[keys.queue, keys.exclusive, keys.held, keys.marks].map((kind) => ({
        delete: only(`${kind}${slot}`),
      })),
      { put: Buffer.from(mailbox), value: thief, lease },
    ],
  }));
}

// ---- to get out

/** `waited`: it was in the queue, without the lock. If it has the lock by a question that was refused, that is released. */
export function takeBack(entry: Entry): Txn {
  return {
    as: 'waited',
    when: [exists(queueKey(entry)), none(only(heldKey(entry)))],
    does: [...leaveQueue(entry), lastOneOut(entry, [])],
    otherwise: [release(entry, false, false)],
  };
}

/** `held`: it had the lock. What an upgrade may have left that was refused goes as well. */
export function release(entry: Entry, repaired: boolean, flight: boolean): Txn {
  const { keys, slot } = entry;
  const counted: Op[] = flight ? [{ put: Buffer.from(keys.flights), value: '' }] : [];
  return {
    as: 'held',
    when: [exists(heldKey(entry))],
    does: [
      ...leaveQueue(entry),
      { delete: only(heldKey(entry)) },
      leaveAhead(keys, slot),
      { delete: marksGoneWith(entry, repaired) },
      lastOneOut(entry, counted),
    ],
  };
}

function leaveQueue(entry: Entry): Op[] {
  return [{ delete: only(queueKey(entry)) }, { delete: only(exclusiveKey(entry)) }];
}

/** Who leaves nobody behind takes along what only matters to those who are there. */
function lastOneOut({ keys, position }: Entry, otherwise: Op[]): Txn {
  return {
    as: 'last',
    when: [allCreatedAt(startingWith(keys.queue), position)],
    does: [{ delete: only(keys.token) }, { delete: only(keys.flights) }],
    otherwise,
  };
}

function leaveAhead(keys: LockKeys, slot: string): Txn {
  return { as: 'was ahead', when: [hasValue(keys.ahead, slot)], does: [{ delete: only(keys.ahead) }] };
}

function stepAhead({ keys, slot, lease }: Entry): Op {
  return { put: Buffer.from(keys.ahead), value: slot, lease };
}

/** Whoever is exclusive no more leaves no mark; whoever has repaired what there was takes those of the dead along. */
function marksGoneWith(entry: Entry, repaired: boolean): Keys {
  return repaired ? startingWith(entry.keys.marks) : only(markKey(entry));
}

// ---- to change the mode

/** `held`: it had the lock, and is shared now. */
export function downgrade(entry: Entry, repaired: boolean): Txn {
  const { keys, slot } = entry;
  return {
    as: 'held',
    when: [exists(heldKey(entry))],
    does: [
      { delete: only(exclusiveKey(entry)) },
      leaveAhead(keys, slot),
      { delete: marksGoneWith(entry, repaired) },
      hold(entry, 'shared'),
    ],
  };
}

/** `free`: it is exclusive. Else, with `wait`, `barred`: from now on nobody else gets in. */
export function upgrade(entry: Entry, how: 'wait' | 'try'): Txn {
  const { keys, heldAt } = entry;
  const isThere = [allCreatedAt(only(heldKey(entry)), heldAt), none(only(keys.ahead))];
  return {
    as: 'free',
    when: [...isThere, allCreatedAt(startingWith(keys.held), heldAt)],
    does: [stepAhead(entry), ...grant(entry, 'exclusive')],
    otherwise: [
      {
        as: 'barred',
        when: isThere,
        does: how === 'try' ? [] : [stepAhead(entry), ...blockers(entry)],
        otherwise: [...own(entry), ...blockers(entry)],
      },
    ],
  };
}

/** As {@link takeTurn}, for an upgrade. */
export function takeTurnToUpgrade(entry: Entry): Txn {
  const { keys, slot, heldAt } = entry;
  return {
    as: 'free',
    when: [
      hasValue(keys.ahead, slot),
      allCreatedAt(startingWith(keys.held), heldAt),
      none(only(markKey(entry))),
    ],
    does: grant(entry, 'exclusive'),
    otherwise: [...own(entry), ...blockers(entry)],
  };
}

/** Takes a pending upgrade back, if its mark does not tell that it was granted; or the bar of a theft that was given up. */
export function standBack(entry: Entry): Txn {
  const { keys, slot } = entry;
  return {
    as: 'stood ahead',
    when: [hasValue(keys.ahead, slot), none(only(markKey(entry)))],
    does: [{ delete: only(keys.ahead) }],
    otherwise: own(entry),
  };
}

/** Of a holder whose upgrade was refused: what may have come of that. */
export function undoUpgrade(entry: Entry): Txn {
  const { keys, slot } = entry;
  const does = [only(keys.ahead), only(markKey(entry))].map((key) => ({ delete: key }));
  return { as: 'undone', when: [hasValue(keys.ahead, slot)], does };
}

// ---- what these have in common

function enqueue(entry: Entry): Op[] {
  const { lease, mode } = entry;
  const inQueue: Op = { put: Buffer.from(queueKey(entry)), value: entry.describe(mode), lease };
  if (mode === 'shared') return [inQueue];
  return [inQueue, { put: Buffer.from(exclusiveKey(entry)), value: '', lease }];
}

function hold(entry: Entry, mode: LockMode): Op {
  return { put: Buffer.from(heldKey(entry)), value: entry.describe(mode), lease: entry.lease };
}

/** The token of a shared one is that of the last exclusive grant; or, if that was forgotten, a later one. */
function grant(entry: Entry, mode: LockMode = entry.mode): Op[] {
  const { keys } = entry;
  const renewed: Op = { put: Buffer.from(keys.token), value: '' };
  const granted: Op[] =
    mode === 'exclusive'
      ? [{ put: Buffer.from(markKey(entry)), value: entry.describe(mode) }, renewed]
      : [{ as: 'no token', when: [none(only(keys.token))], does: [renewed] }];
  return [hold(entry, mode), ...granted, ...told(entry)];
}

/** What a holder is told. */
function told(entry: Entry): Op[] {
  const { keys } = entry;
  return [
    { as: 'token', get: only(keys.token) },
    { as: 'marks', get: startingWith(keys.marks), newest: 'changed', limit: 2, withValues: true },
    flights(entry),
  ];
}

/** What tells whether it has done all this before. */
function own(entry: Entry): Op[] {
  return [
    { as: 'own place', get: only(queueKey(entry)) },
    { as: 'own hold', get: only(heldKey(entry)) },
    { as: 'own mark', get: only(markKey(entry)) },
    { as: 'own mail', get: only(entry.mailbox) },
    ...told(entry),
  ];
}

/** Whom it may have to wait for. */
function blockers(entry: Entry): Op[] {
  const { keys, mode, position, heldAt } = entry;
  const before = position === 0 ? undefined : position;
  const last = (as: string, prefix: string, limit = 1): Op => ({
    as,
    get: startingWith(prefix),
    newest: 'created',
    limit,
    ...(before === undefined || heldAt > 0 ? {} : { before }),
  });
  return [
    ...(heldAt > 0 ? [] : [last('before', mode === 'exclusive' ? keys.queue : keys.exclusive)]),
    { as: 'ahead', get: only(keys.ahead), withValues: true },
    { as: 'others', get: startingWith(keys.held), newest: 'created', limit: 2 },
  ];
}

function flights({ keys }: Entry): Op {
  return { as: 'flights', get: only(keys.flights) };
}

const queueKey = ({ keys, slot }: Entry): string => `${keys.queue}${slot}`;
const exclusiveKey = ({ keys, slot }: Entry): string => `${keys.exclusive}${slot}`;
const heldKey = ({ keys, slot }: Entry): string => `${keys.held}${slot}`;
const markKey = ({ keys, slot }: Entry): string => `${keys.marks}${slot}`;
