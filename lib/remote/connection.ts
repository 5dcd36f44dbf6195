// One session with the engine, as its space sees it: which hold or wait is meant by which id, and until when the holds are
// certain.
//
// A hold is given up here before the engine can grant it to somebody else: by our own clock, at the time that the engine
// named last. The clock is looked at by a timer, and by whoever asks whether a hold was lost, for after an event loop that
// was blocked our timer may be late. Time in which the machine was suspended counts.
import { type Moment, moment, msSince, now, startDeadline, startTimer, type Timer } from '../common/clock';
import { LockError, Theft, unavailableError } from '../common/errors';
import type { LockInfo } from '../common/types';
import type { Grant, Session, SessionEvents, Slot } from './engine';

/** How long the engine may take to answer before the caller is told that it does not. */
export const ANSWER_MS_MAX = 5000;

/** An engine that goes on to answer others first may take so many times as long. */
const PATIENCE = 6;

/** How long until what the engine has refused is asked for again: at first, and at most. */
export const AGAIN_MS_MIN = 100;
export const AGAIN_MS_MAX = 2000;

/** After so many refusals in a row it does not change its mind: a session that can not give something back is ended, a wait fails. */
export const REFUSALS_MAX = 6;

/** After a suspension, so soon the timer finds out that the holds are lost, though it stood still as well. */
const LOOK_MS_MAX = 1000;

/** What is asked in a session. */
export type Question<T> = (session: Session) => Promise<T>;

/** A hold, as far as it is told of anything. */
export interface Losing {
  readonly id: number;
  /** From now on it is lost, though nobody is told yet. */
  markLost(cause: Error): void;
  tellLoss(): void;
}

/** A wait, as far as it is told of anything. */
export interface Waiting {
  granted(grant: Grant): void;
  /** The session is over, and with it the place in the queue. */
  sessionEnded(why: Error): void;
}

/** What a connection needs of its space. */
export interface Connected {
  /** To be called before anybody is told. */
  disconnected(connection: Connection): void;
  /** To be called when everybody was told. */
  reconnect(): void;
  /** Keeps the process alive until the promise has settled. */
  pending<T>(promise: Promise<T>): Promise<T>;
  /** Who holds the lock of this name. */
  heldBy(name: string, limitMs: number): Promise<LockInfo[]>;
}

export class Connection implements SessionEvents {
  /** Why the session is over. */
  over: Error | undefined = undefined;
  private opened: Session | undefined = undefined;
  private readonly holds = new Map<number, Losing>();
  private readonly waits = new Map<number, Waiting>();
  private lastId = 0;
  /** For so long after that the holds are certain. */
  private certainMs = Number.POSITIVE_INFINITY;
  private provedAt: Moment = moment();
  /** When the engine answered last, by `now()`. */
  private answeredAt = Number.NEGATIVE_INFINITY;
  private timer: Timer | undefined = undefined;

  constructor(private readonly space: Connected) {}

  get session(): Session {
    return this.opened as Session;
  }

  open(session: Session): void {
    this.opened = session;
  }

  newId(): number {
    return ++this.lastId;
  }

  addWait(id: number, wait: Waiting): void {
    this.waits.set(id, wait);
  }

  removeWait(id: number): void {
    this.waits.delete(id);
  }

  addHold(hold: Losing): void {
    this.holds.set(hold.id, hold);
  }

  removeHold(id: number): void {
    this.holds.delete(id);
  }

  /**
   * Asks the engine to change something, and waits until it has changed nothing for so long. Behind thousands of other
   * questions an answer may take longer than that, though nothing is wrong. `what` is to be done, in words.
   */
  ask<T>(what: string, question: Question<T>, limitMs: number = ANSWER_MS_MAX): Promise<T> {
    const answer = new Promise<T>((resolve, reject) => {
      const askedAt = now();
      let timer: Timer;
      const arm = (ms: number): void => {
        timer = startDeadline(() => {
          const left = Math.min(this.answeredAt + limitMs, askedAt + PATIENCE * limitMs) - now();
          if (left > 0) arm(left);
          else reject(unavailableError(what, undefined));
        }, Math.ceil(ms));
      };
      arm(limitMs);
      question(this.session)
        .then(resolve, reject)
        .finally(() => timer.clear());
    });
    return this.space.pending(answer);
  }

  /** Keeps the process alive until the promise has settled. */
  pending<T>(promise: Promise<T>): Promise<T> {
    return this.space.pending(promise);
  }

  /** Who holds the lock of this name. */
  holdersOf(name: string, limitMs: number): Promise<LockInfo[]> {
    return this.space.heldBy(name, limitMs);
  }

  /**
   * For a wait that its waiter has given up, and whose grant nobody expects any more: should the engine have granted it
   * meanwhile, it is released.
   */
  discard(slot: Slot): void {
    const takeBack = this.insisting(async (session) => {
      const grant = await session.withdraw(slot);
      if (grant !== undefined) await session.release(slot, { repaired: false, flight: false });
    });
    this.space.pending(takeBack(this.session)).catch(() => {}); // it is asked for again
  }

  /** The same question, for what gives something back: where the engine refuses that, it is asked for again. */
  insisting<T>(question: Question<T>): Question<T> {
    return (session) => {
      const answer = question(session);
      answer.catch(() => void this.insist(question));
      return answer;
    };
  }

  /**
   * For what the engine has refused to take back: offers it again until the engine takes it. Nothing else would before the
   * session ends, so that is what comes of it if the engine does not change its mind. Keeps no process alive.
   */
  async insist(question: Question<unknown>): Promise<void> {
    let ms = AGAIN_MS_MIN;
    for (let refusals = 1; this.over === undefined; ms = Math.min(ms * 2, AGAIN_MS_MAX)) {
      await new Promise<void>((resolve) => startTimer(resolve, ms));
      if (this.over !== undefined) return;
      try {
        await question(this.session);
        return;
      } catch (error) {
        if (++refusals < REFUSALS_MAX || this.over !== undefined) continue;
        this.end(error as Error);
        this.session.drop();
      }
    }
  }

  /** Whether the engine has changed something since then. */
  hasAnsweredSince(time: number): boolean {
    return this.answeredAt >= time;
  }

  /** Whether our holds may be those of others by now. */
  isOverdue(): boolean {
    return this.certainMs < Number.POSITIVE_INFINITY && msSince(this.provedAt) >= this.certainMs;
  }

  /** Ends the session if that is so. */
  expireIfOverdue(): void {
    if (this.over !== undefined || !this.isOverdue()) return;
    this.end(
      new LockError(
        'ERR_LOCK_UNAVAILABLE',
        'the lease was not renewed in time: the engine, or this process, stood still',
      ),
    );
    this.opened?.drop();
  }

  // ---- what the engine tells

  granted(id: number, grant: Grant): void {
    this.expireIfOverdue();
    this.waits.get(id)?.granted(grant);
  }

  robbed(id: number, thief: string): void {
    const hold = this.holds.get(id);
    this.holds.delete(id);
    hold?.markLost(new Theft(`stolen by ${thief}`));
    hold?.tellLoss();
  }

  certainFor(ms: number, from: Moment): void {
    this.expireIfOverdue();
    if (this.over !== undefined) return;
    this.certainMs = ms;
    this.provedAt = from;
    if (this.timer === undefined) this.arm();
  }

  answered(): void {
    this.answeredAt = now();
  }

  ended(why: Error): void {
    this.end(why);
  }

  // ----

  /** Ends it for us: whatever is held or waited for is told. */
  end(why: Error): void {
    if (this.over !== undefined) return;
    this.over = why;
    this.timer?.clear();
    this.space.disconnected(this);
    // Whoever is told first finds the others lost as well.
    for (const hold of this.holds.values()) hold.markLost(why);
    for (const hold of this.holds.values()) hold.tellLoss();
    for (const wait of this.waits.values()) wait.sessionEnded(why);
    this.holds.clear();
    this.waits.clear();
    this.space.reconnect();
  }

  private arm(): void {
    this.timer = startTimer(
      () => {
        this.expireIfOverdue();
        if (this.over === undefined) this.arm();
      },
      Math.min(Math.max(Math.ceil(this.certainMs - msSince(this.provedAt)), 1), LOOK_MS_MAX),
    );
  }
}
