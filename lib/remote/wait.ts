// A lock that is waited for, and what becomes of the wait: see pending.ts.
import type { AcquireEvent } from '../common/channels';
import { now, startTimer } from '../common/clock';
import { type LockError, shown, timeoutError, unavailableError } from '../common/errors';
import type { Acquire } from '../common/options';
import type { LockInfo, LockMode } from '../common/types';
import { AGAIN_MS_MAX, AGAIN_MS_MIN, ANSWER_MS_MAX, type Connection, REFUSALS_MAX } from './connection';
import type { Grant, Session, Slot } from './engine';
import { Hold, type LockRecord } from './hold';
import { Pending, WITHDRAWAL_MS_MAX } from './pending';

/** What an acquire needs of its space. */
export interface WaitedSpace {
  /** Calls `submit` if there is a session, and from now on whenever there is a new one, until it is removed. */
  addRequest(request: Wait): void;
  removeRequest(request: Wait): void;
  /** Why there is no session, if there is none. */
  readonly unreachable: unknown;
  heldBy(name: string, limitMs: number): Promise<LockInfo[]>;
}

/** Who else is told of an acquire. */
export interface WaitWatchers {
  /** Has it for as long as it is pending. */
  readonly group?: Set<Wait>;
  /** Is told when it has to wait. */
  readonly event?: AcquireEvent | undefined;
}

/** A pending acquire. */
export class Wait extends Pending {
  protected slot: Slot;
  /** How many flights were finished when it was queued first. */
  private flights: number | undefined = undefined;
  /** Why the engine could not do it, until it is asked again; and how often in a row it could not. */
  private refusal: unknown = undefined;
  private refusals = 0;
  /** How long it waits before that. */
  private againMs = AGAIN_MS_MIN;

  private constructor(
    private readonly space: WaitedSpace,
    private readonly record: LockRecord,
    private readonly mode: LockMode,
    private readonly how: 'wait' | 'try' | 'steal',
    options: Pick<Acquire, 'timeout' | 'signal'>,
    private readonly watchers: WaitWatchers,
    private readonly resolve: (hold: Hold | undefined) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    super(options);
    this.slot = { id: 0, name: record.name, mode };
    watchers.group?.add(this);
  }

  /**
   * Takes the lock, or waits for it. With `try` it does not wait, and the result may be `undefined`.
   */
  static begin(
    space: WaitedSpace,
    record: LockRecord,
    mode: LockMode,
    how: 'wait' | 'try' | 'steal',
    options: Pick<Acquire, 'timeout' | 'signal'>,
    watchers: WaitWatchers,
  ): Promise<Hold | undefined> {
    return new Promise((resolve, reject) => {
      // What does not wait for others waits for the engine alone, and then for the withdrawal.
      const limited = how === 'wait' ? options : { ...options, timeout: ANSWER_MS_MAX - WITHDRAWAL_MS_MAX };
      space.addRequest(new Wait(space, record, mode, how, limited, watchers, resolve, reject));
    });
  }

  /** Puts the question in a session. */
  submit(connection: Connection): void {
    if (this.state !== 'waiting') return;
    const { how, mode, record } = this;
    const slot = { id: connection.newId(), name: record.name, mode };
    this.slot = slot;
    this.refusal = undefined;
    this.put(connection, () => connection.session.acquire(slot, how));
  }

  protected queued(flights: number): void {
    this.flights ??= flights;
    if (this.watchers.event !== undefined) this.watchers.event.contended = true;
  }

  /** Whoever waits goes on until its time is up, also where the engine can not do what it was asked for at the moment. */
  protected override failed(error: unknown): void {
    const mayPass = (error as LockError).code === 'ERR_LOCK_UNAVAILABLE' && ++this.refusals < REFUSALS_MAX;
    if (this.how !== 'wait' || !mayPass) {
      super.failed(error);
      return;
    }
    const connection = this.connection as Connection;
    connection.removeWait(this.slot.id);
    connection.discard(this.slot);
    this.connection = undefined;
    this.refusal = error;
    startTimer(() => {
      // Meanwhile it may have been asked in a new session.
      if (this.state === 'waiting' && this.connection === undefined) this.space.addRequest(this);
    }, this.againMs);
    this.againMs = Math.min(this.againMs * 2, AGAIN_MS_MAX);
  }

  protected take(grant: Grant): void {
    const hold = new Hold(this.connection as Connection, this.record, this.slot, grant);
    if (this.flights !== undefined) hold.sawFlight = grant.flights > this.flights;
    this.settled();
    this.resolve(hold);
  }

  protected refused(): void {
    this.settled();
    this.resolve(undefined);
  }

  protected refuse(reason: unknown): void {
    this.settled();
    this.reject(reason);
  }

  protected lostPlace(): void {
    // The space submits it again.
  }

  protected giveBack(session: Session, slot: Slot): Promise<unknown> {
    return session.release(slot, { repaired: false, flight: false });
  }

  protected leaveUnheard(connection: Connection, slot: Slot): void {
    connection.discard(slot);
  }

  protected async timedOut(): Promise<unknown> {
    const { mode, options, record, space } = this;
    const what = `acquire ${shown(record.name)} (${mode})`;
    if (this.how !== 'wait' || this.connection === undefined)
      return unavailableError(what, this.refusal ?? space.unreachable);
    const { connection } = this;
    const askedAt = now();
    try {
      return timeoutError(record, mode, options.timeout, await space.heldBy(record.name, WITHDRAWAL_MS_MAX));
    } catch (error) {
      // It is there, and has too much to do to say who holds the lock.
      if (connection.over === undefined && connection.hasAnsweredSince(askedAt))
        return timeoutError(record, mode, options.timeout, []);
      return (error as LockError).code === 'ERR_LOCK_CLOSED' ? error : unavailableError(what, error);
    }
  }

  private settled(): void {
    this.space.removeRequest(this);
    this.watchers.group?.delete(this);
  }
}
