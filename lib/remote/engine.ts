// The seam: what locks ask of whatever is shared between the machines.
//
// An engine keeps, for each name, who holds the lock and who waits for it, strictly first in, first out; the fencing token
// of the last exclusive grant; the mark of an exclusive holder that died; and how many flights were finished. It knows no
// owners, time-outs, callbacks or nested acquires: those are the same everywhere, and are above this seam.
//
// Whoever asks chooses the id of a hold or wait before asking. So an answer that was lost with a connection loses nothing:
// the same id can be withdrawn or released, whether it was queued, granted or never heard of.
import type { Moment } from '../common/clock';
import type { Abandoned, LockMode, LockSnapshot } from '../common/types';

/** One hold or wait of a session. A wait that is granted becomes the hold of the same id. */
export interface Slot {
  /** Of this session, never used again in it. */
  readonly id: number;
  /** Of the lock, in the namespace of the engine. */
  readonly name: string;
  /** As it was asked for; the engine is told of later changes by `downgrade` and `upgrade`. */
  readonly mode: LockMode;
}

/** What a holder is told. */
export interface Grant {
  /** Greater with every exclusive grant of the name; a shared one has that of the last exclusive grant. */
  readonly token: bigint;
  /** The exclusive holder that died, if nobody has cleared its mark since. */
  readonly abandoned: Abandoned | null;
  /** How many flights of the name were finished before: see {@link Leaving.flight}. */
  readonly flights: number;
}

/** What an exclusive holder that died has left on a lock. */
export interface Mark {
  readonly name: string;
  readonly abandoned: Abandoned;
}

/** How a hold ends. */
export interface Leaving {
  /** The holder saw the mark of a dead one, exclusively, and came to the end of its work: the mark is cleared. */
  readonly repaired: boolean;
  /** What the holder did counts as a finished flight, which those who wait now need not do again. */
  readonly flight: boolean;
}

/** What becomes of a question for the lock. */
export type Answer =
  | { readonly state: 'granted'; readonly grant: Grant }
  /** `granted` of the {@link SessionEvents} will tell. */
  | { readonly state: 'queued'; readonly flights: number }
  /** It would have had to wait, and was not to; or, for an upgrade, another holder is upgrading already. */
  | { readonly state: 'refused' };

/** What an engine tells of a session, in the order in which it happened. Nothing after `ended`. */
export interface SessionEvents {
  /** A queued wait, or upgrade, has the lock. Not told where the {@link Answer} told it, nor after `withdraw` has settled. */
  granted(id: number, grant: Grant): void;
  /** Somebody stole the lock from this hold. `thief` says who. Not told before the answer, if any, that granted it. */
  robbed(id: number, thief: string): void;
  /**
   * For so many milliseconds no other session is granted what this one holds, whatever happens to the connection; reckoned from
   * before the question was sent to which the engine's answer is the proof.
   */
  certainFor(ms: number, from: Moment): void;
  /**
   * The engine does what it is asked to do: it has answered a question that changes something. What it may answer although it
   * can change nothing, as that the session is still there, does not count.
   */
  answered(): void;
  /** All holds and waits of the session are gone, or will be. */
  ended(why: Error): void;
}

/**
 * One session with the engine: what its holds and waits live and die with.
 *
 * Methods reject with a `LockError`. After `ERR_LOCK_UNAVAILABLE` or `ERR_LOCK_NO_SPACE` it is not known whether the engine did
 * what was asked. When a session ends, all questions that are not answered yet reject; `ended` is told before.
 *
 * `withdraw`, `release` and `downgrade` can be repeated after they have rejected, until one resolves: what they give back
 * stays known to the session until the engine has said that it has it.
 */
export interface Session {
  /** Unique for ever; what `query()` shows. */
  readonly clientId: string;
  /** `try` is refused where it would have to wait, also behind waiters. `steal` takes the lock from all holders, exclusively. */
  acquire(slot: Slot, how: 'wait' | 'try' | 'steal'): Promise<Answer>;
  /**
   * Ends a wait, or takes a pending upgrade back; does nothing if there is none. It can cross its grant: then it resolves
   * with that, and the hold is there. For an upgrade that was refused meanwhile it resolves with nothing, though the shared
   * hold is there.
   */
  withdraw(slot: Slot): Promise<Grant | undefined>;
  /**
   * Also ends an upgrade of it that is pending.
   * @returns false if there was no such hold any more; where it was stolen, `robbed` was told before
   */
  release(slot: Slot, leaving: Leaving): Promise<boolean>;
  /**
   * Exclusive to shared; nobody gets in between. `repaired`: the mark of a dead holder is cleared.
   * @returns as `release`
   */
  downgrade(slot: Slot, repaired: boolean): Promise<boolean>;
  /** Shared to exclusive, ahead of the queue and with newcomers barred. */
  upgrade(slot: Slot, how: 'wait' | 'try'): Promise<Answer>;
  /** Of one name, or of all that are held or waited for. */
  query(name?: string): Promise<LockSnapshot>;
  /** Of all names: who died holding exclusively, where nobody has cleared the mark of it since. */
  marks(): Promise<Mark[]>;
  /** Ends everything: holds are released, not abandoned. */
  close(): Promise<void>;
  /**
   * Gives the session up without asking: its holds end as those of a dead process. Questions that are not answered yet
   * reject; `ended` need not follow.
   */
  drop(): void;
}

/** What a space is opened over. */
export interface Engine {
  /** Of which kind. */
  readonly kind: 'postgres' | 'etcd' | 'memory';
  /** The world of names that the sessions are in. */
  readonly namespace: string;
  /** Which one of its kind it is: the same for all programs that reach it in the same way. */
  readonly origin: string;
  /** Rejects with a `LockError`: `ERR_LOCK_UNAVAILABLE` where it makes sense to try again. */
  open(events: SessionEvents): Promise<Session>;
}
