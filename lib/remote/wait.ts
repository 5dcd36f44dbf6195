// A question for a lock, from the call to the grant or the reason why there is none.
//
// Its place in the queue lives and dies with a session. When that ends, a wait for a lock queues again in the next one, and
// an upgrade fails with the hold that was to be upgraded. Whoever gives up asks the engine to take the place back, and is
// told when that is done, so that no waiter is left behind an error; a grant that crosses it is taken where only the time
// was up, and released where the caller does not want it any more.
import type { AcquireEvent } from '../common/channels';
import { now, startTimer, type Timer } from '../common/clock';
import {
  type LockError,
  lostError,
  secondUpgradeError,
  shown,
  timeoutError,
  unavailableError,
} from '../common/errors';
import { type Acquire, reasonOf, stopListening } from '../common/options';
import type { LockInfo, LockMode } from '../common/types';
import { ANSWER_MS_MAX, type Connection, type Waiting } from './connection';
import type { Answer, Grant, Session, Slot } from './engine';
import { Hold, type LockRecord, type PendingUpgrade } from './hold';

/** How long whoever gives up waits for the engine to take the place in the queue back. */
const WITHDRAWAL_MS_MAX = 1000;

/** `waiting`: for the grant. `leaving`: given up, and not yet out of the queue. */
type State = 'waiting' | 'leaving' | 'over';

abstract class Pending implements Waiting {
  /** Where it is asked, if there is a session. */
  protected connection: Connection | undefined = undefined;
  protected state: State = 'waiting';
  private readonly deadline: number;
  private timer: Timer | undefined = undefined;
  /** Settles the withdrawal when the session ends before it is answered. */
  private sessionIsOver: (() => void) | undefined = undefined;

  constructor(protected readonly options: Pick<Acquire, 'timeout' | 'signal'>) {
    this.deadline = now() + options.timeout;
    options.signal?.addEventListener('abort', this.onAbort, { once: true });
    if (options.timeout !== Number.POSITIVE_INFINITY) this.arm();
  }

  protected abstract readonly slot: Slot;
  protected abstract take(grant: Grant): void;
  protected abstract refused(): void;
  protected abstract refuse(reason: unknown): void;
  /** The place is gone, though the waiter still wants it. */
  protected abstract lostPlace(why: Error): void;
  /** The error of a waiter whose time is up. */
  protected abstract timedOut(): Promise<unknown>;
  protected abstract queued(flights: number): void;

  /** Puts the question. */
  protected put(connection: Connection, question: () => Promise<Answer>): void {
    this.connection = connection;
    connection.addWait(this.slot.id, this);
    question().then(
      (answer) => this.answered(connection, answer),
      (error) => this.failed(connection, error),
    );
  }

  private answered(connection: Connection, answer: Answer): void {
    connection.expireIfOverdue();
    if (connection !== this.connection) return; // that session is over
    if (answer.state === 'granted') this.granted(answer.grant);
    else if (this.state === 'over') return;
    else if (answer.state === 'queued') this.queued(answer.flights);
    else if (this.state === 'waiting') {
      this.end();
      this.refused();
    }
  }

  granted(grant: Grant): void {
    // While it leaves, the answer to the withdrawal says the same.
    if (this.state !== 'waiting') return;
    this.end();
    this.take(grant);
  }

  /** The engine refuses it. */
  private failed(connection: Connection, error: unknown): void {
    if (this.state === 'waiting' && connection === this.connection) this.fail(error);
  }

  sessionEnded(why: Error): void {
    this.connection = undefined;
    if (this.state === 'waiting') this.lostPlace(why);
    else this.sessionIsOver?.();
  }

  /** Ends it, without a word to the engine but that the place is not wanted any more. */
  fail(error: unknown): void {
    if (this.state === 'over') return;
    const { connection, slot } = this;
    this.end();
    if (connection !== undefined) this.leaveUnheard(connection, slot);
    this.refuse(error);
  }

  /** Gives it up: rejects when it is out of the queue, or the engine does not say so in time. */
  withdraw(reason: unknown): void {
    void this.leave(() => reason, false);
  }

  /** Gives up. @param wanted whether a grant that comes in between is taken */
  private async leave(reason: () => unknown, wanted: boolean): Promise<void> {
    if (this.state !== 'waiting') return;
    this.state = 'leaving';
    this.stopListening();
    const { connection, slot } = this;
    let error: unknown;
    let grant: Grant | undefined;
    let answer: Promise<Grant | undefined> | undefined;
    if (connection !== undefined) {
      const withdraw = (session: Session) => {
        answer = session.withdraw(slot);
        return answer;
      };
      try {
        const over = new Promise<undefined>((resolve) => {
          this.sessionIsOver = () => resolve(undefined);
        });
        grant = await Promise.race([
          connection.ask(`leave the queue of ${shown(slot.name)}`, withdraw, WITHDRAWAL_MS_MAX),
          over,
        ]);
      } catch (failure) {
        error = failure;
      }
    }
    if ((this.state as State) === 'over') return; // the space was closed meanwhile
    if (this.connection !== connection) grant = undefined; // the session ended behind the answer, and the hold with it
    this.end();
    if (grant !== undefined && wanted) {
      this.take(grant);
      return;
    }
    // Where that fails, the session ends, and with it what was granted.
    if (grant !== undefined) await this.giveBack(connection as Connection, slot).catch(() => {});
    // An abort has the last word. A time-out that the engine kept us from is the engine's.
    this.refuse(wanted && error !== undefined ? error : await reason());
    if (error !== undefined) void this.giveBackLate(connection as Connection, slot, answer);
  }

  /** The engine has not answered in time: whatever it answers later, nobody wants what it has granted. */
  protected async giveBackLate(
    connection: Connection,
    slot: Slot,
    answer: Promise<Grant | undefined> | undefined,
  ): Promise<void> {
    try {
      if ((await answer) !== undefined) await this.giveBack(connection, slot);
    } catch {
      // The session ends, and with it what was granted.
    }
  }

  /** Takes back what was granted to a waiter that does not want it any more. */
  protected abstract giveBack(connection: Connection, slot: Slot): Promise<unknown>;
  /** Leaves the queue; nobody waits for that. */
  protected abstract leaveUnheard(connection: Connection, slot: Slot): void;

  private readonly onAbort = (): void => {
    this.withdraw(reasonOf(this.options.signal as AbortSignal));
  };

  private arm(): void {
    this.timer = startTimer(
      () => {
        if (now() < this.deadline) this.arm();
        else void this.leave(() => this.timedOut(), true);
      },
      Math.ceil(Math.max(this.deadline - now(), 0)),
    );
  }

  private stopListening(): void {
    this.timer?.clear();
    const { signal } = this.options;
    if (signal !== undefined) stopListening(signal, this.onAbort);
  }

  private end(): void {
    this.state = 'over';
    this.stopListening();
    this.connection?.removeWait(this.slot.id);
  }
}

/** What an acquire needs of its space. */
export interface WaitedSpace {
  /** From now on `submit` is called whenever there is a new session, until it is removed. */
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
    this.put(connection, () => connection.session.acquire(slot, how));
  }

  protected queued(flights: number): void {
    this.flights ??= flights;
    if (this.watchers.event !== undefined) this.watchers.event.contended = true;
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

  protected giveBack(connection: Connection, slot: Slot): Promise<unknown> {
    return connection.ask(`release ${shown(slot.name)}`, (session) =>
      session.release(slot, { repaired: false, flight: false }),
    );
  }

  protected leaveUnheard(connection: Connection, slot: Slot): void {
    void connection.discard(slot);
  }

  protected async timedOut(): Promise<unknown> {
    const { mode, options, record, space } = this;
    const what = `acquire ${shown(record.name)} (${mode})`;
    if (this.how !== 'wait' || this.connection === undefined)
      return unavailableError(what, space.unreachable);
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

/** A pending upgrade of a hold. */
export class Upgrade extends Pending implements PendingUpgrade {
  private constructor(
    protected readonly slot: Hold,
    private readonly how: 'wait' | 'try',
    options: Pick<Acquire, 'timeout' | 'signal'>,
    private readonly resolve: (upgraded: boolean) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    super(options);
    slot.upgrade = this;
    this.put(slot.connection, () => slot.connection.session.upgrade(slot, how));
  }

  /** Resolves with whether it is exclusive now; rejects instead of `false` unless that is a `try`. */
  static begin(
    hold: Hold,
    how: 'wait' | 'try',
    options: Pick<Acquire, 'timeout' | 'signal'>,
  ): Promise<boolean> {
    return hold.connection.pending(
      new Promise((resolve, reject) => {
        new Upgrade(hold, how, options, resolve, reject);
      }),
    );
  }

  protected queued(): void {}

  protected take(grant: Grant): void {
    this.slot.upgrade = undefined;
    this.slot.becomeExclusive(grant);
    this.resolve(true);
  }

  protected refused(): void {
    this.slot.upgrade = undefined;
    if (this.how === 'try') this.resolve(false);
    else this.reject(secondUpgradeError(this.slot));
  }

  protected refuse(reason: unknown): void {
    this.slot.upgrade = undefined;
    this.reject(reason);
  }

  protected lostPlace(why: Error): void {
    this.refuse(lostError(this.slot, why));
  }

  protected giveBack(connection: Connection, slot: Slot): Promise<unknown> {
    return connection.ask(`downgrade ${shown(slot.name)}`, (session) => session.downgrade(slot, false));
  }

  protected leaveUnheard(): void {
    // The hold has ended, and the upgrade with it.
  }

  protected override async giveBackLate(
    connection: Connection,
    slot: Slot,
    answer: Promise<Grant | undefined> | undefined,
  ): Promise<void> {
    // Until it is known what the engine has made of this one, there is no other: it would be taken back as well.
    this.slot.upgrade = this;
    await super.giveBackLate(connection, slot, answer);
    this.slot.upgrade = undefined;
  }

  protected async timedOut(): Promise<unknown> {
    const { how, options, slot } = this;
    const what = `upgrade ${shown(slot.name)}`;
    if (how !== 'wait') return unavailableError(what, undefined);
    try {
      const holders = await slot.connection.holdersOf(slot.name, WITHDRAWAL_MS_MAX);
      return timeoutError(slot, 'upgrade to exclusive', options.timeout, holders);
    } catch (error) {
      return unavailableError(what, error);
    }
  }
}
