// A question for a lock, from the call to the grant or the reason why there is none.
//
// Its place in the queue lives and dies with a session. When that ends, a wait for a lock queues again in the next one, and
// an upgrade fails with the hold that was to be upgraded. Whoever gives up asks the engine to take the place back, and is
// told when that is done, so that no waiter is left behind an error; a grant that crosses it is taken where only the time
// was up, and released where the caller does not want it any more.
import { now, startDeadline, type Timer } from '../common/clock';
import { shown } from '../common/errors';
import { type Acquire, reasonOf } from '../common/options';
import { listenTo, stopListening } from '../common/signals';
import type { Connection, Waiting } from './connection';
import type { Answer, Grant, Session, Slot } from './engine';

/** How long whoever gives up waits for the engine to take the place in the queue back. */
export const WITHDRAWAL_MS_MAX = 1000;

/** `waiting`: for the grant. `leaving`: given up, and not yet out of the queue. */
type State = 'waiting' | 'leaving' | 'over';

export abstract class Pending implements Waiting {
  /** Where it is asked, if there is a session. */
  protected connection: Connection | undefined = undefined;
  protected state: State = 'waiting';
  private readonly deadline: number;
  private timer: Timer | undefined = undefined;
  /** Settles the withdrawal when the session ends before it is answered. */
  private sessionIsOver: (() => void) | undefined = undefined;

  constructor(protected readonly options: Pick<Acquire, 'timeout' | 'signal'>) {
    this.deadline = now() + options.timeout;
    if (options.signal !== undefined) listenTo(options.signal, this.onAbort);
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
      (error) => {
        if (this.state === 'waiting' && connection === this.connection) this.failed(error);
      },
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

  /** The engine refuses it, and the session goes on. */
  protected failed(error: unknown): void {
    this.fail(error);
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
    let isRefused = false;
    const leftAt = now();
    if (connection !== undefined) {
      const withdraw = (session: Session) => {
        answer = session.withdraw(slot);
        answer.catch(() => {
          isRefused = true;
        });
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
    if (grant !== undefined) await this.giveBackNow(connection as Connection, slot);
    // An abort has the last word. A time-out that the engine kept us from is the engine's, unless that only has much to do.
    const isBusy = !isRefused && connection?.over === undefined && connection?.hasAnsweredSince(leftAt);
    this.refuse(wanted && error !== undefined && !isBusy ? error : await reason());
    if (error !== undefined) void this.giveBackLate(connection as Connection, slot, answer);
  }

  /** What it does not take back is offered again. */
  private async giveBackNow(connection: Connection, slot: Slot): Promise<void> {
    const giveBack = connection.insisting((session) => this.giveBack(session, slot));
    await connection.ask(`give back ${shown(slot.name)}`, giveBack).catch(() => {});
  }

  /**
   * The engine has not answered in time, or refused: whatever it answers later, nobody wants what it has granted, or the
   * place in the queue.
   */
  protected async giveBackLate(
    connection: Connection,
    slot: Slot,
    answer: Promise<Grant | undefined> | undefined,
  ): Promise<void> {
    try {
      if ((await answer) !== undefined) await connection.pending(this.giveBack(connection.session, slot));
    } catch {
      await connection.insist(async (session) => {
        if ((await session.withdraw(slot)) !== undefined) await this.giveBack(session, slot);
      });
    }
  }

  /** Takes back what was granted to a waiter that does not want it any more. */
  protected abstract giveBack(session: Session, slot: Slot): Promise<unknown>;
  /** Leaves the queue; nobody waits for that. */
  protected abstract leaveUnheard(connection: Connection, slot: Slot): void;

  private readonly onAbort = (): void => {
    this.withdraw(reasonOf(this.options.signal as AbortSignal));
  };

  private arm(): void {
    this.timer = startDeadline(
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
