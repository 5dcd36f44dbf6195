// Tells those who asked (`guard.lost`) that their hold has ended without them: a theft at once, for the thief rings their
// doorbell; a namespace that was removed within a second or two, for nothing tells of that: the file is looked for.
import { publishLost } from '../common/channels';
import { startTimer } from '../common/clock';
import { type LockError, lostError, Theft } from '../common/errors';
import type { LockInfo, LockMode } from '../common/types';
import { errorOf, Status, type Subject } from './errors';

const LOOK_MS = 1000;

/** What there is to be known of a hold. */
export interface Losable {
  readonly mode: LockMode;
  readonly token: bigint;
  readonly record: Subject & {
    readonly namespace: string;
    /** Whether the namespace was deleted since. */
    isGone(): boolean;
    /** Who holds it now; throws where that can not be seen at once. */
    holders(): LockInfo[];
    /** The token of the last exclusive grant, to whomever, if it can be read. */
    lastToken(): bigint | undefined;
  };
  /** From now on `stolen` is called when somebody steals the lock. */
  listen(stolen: () => void): void;
  wasLost(): boolean;
}

/**
 * The error of a hold that was stolen. It names the thief, if that one still holds the lock: his is the next token after that of
 * the hold.
 */
export function stolenError(record: Losable['record'], token: bigint): LockError {
  let thief: LockInfo | undefined;
  try {
    thief = record.holders().find(({ mode }) => mode === 'exclusive');
    if (record.lastToken() !== token + 1n) thief = undefined; // whoever holds it now came later
  } catch {
    // Who it was can not be seen at the moment.
  }
  const by = thief === undefined ? '' : ` by pid ${thief.pid} thread ${thief.threadId}`;
  return lostError(record, new Theft(`it was stolen${by}`));
}

/** The error of a hold whose namespace was removed. */
function removedError(record: Losable['record']): LockError {
  return lostError(record, errorOf(Status.REMOVED, 'hold', record));
}

/** A hold was lost. `controller`: of its holder, if that one has asked. */
export function tellLoss(
  record: Losable['record'],
  mode: LockMode,
  loss: LockError,
  controller: AbortController | undefined,
): void {
  controller?.abort(loss);
  publishLost(record, mode, loss);
}

export class Losses {
  private readonly signals = new Map<Losable, AbortController>();
  private lookIsDue = false;

  /** Aborts when that hold has ended without its holder. */
  signal(hold: Losable): AbortSignal {
    let controller = this.signals.get(hold);
    if (controller === undefined) {
      controller = new AbortController();
      this.signals.set(hold, controller);
      hold.listen(() => this.stolen(hold));
      this.lookLater();
      const { mode, record } = hold;
      if (record.isGone()) tellLoss(record, mode, removedError(record), controller);
    }
    if (!controller.signal.aborted && hold.wasLost()) this.stolen(hold);
    return controller.signal;
  }

  /** The hold ends. @returns by what its holder was told, or is to be told, that it was lost */
  forget(hold: Losable): AbortController | undefined {
    const controller = this.signals.get(hold);
    this.signals.delete(hold);
    return controller;
  }

  private stolen(hold: Losable): void {
    const controller = this.signals.get(hold);
    if (controller !== undefined && !controller.signal.aborted)
      tellLoss(hold.record, hold.mode, stolenError(hold.record, hold.token), controller);
  }

  private lookLater(): void {
    if (this.lookIsDue) return;
    startTimer(() => {
      this.lookIsDue = false;
      for (const [hold, controller] of this.signals) {
        const { mode, record } = hold;
        if (!controller.signal.aborted && record.isGone())
          tellLoss(record, mode, removedError(record), controller);
      }
      if (this.signals.size > 0) this.lookLater();
    }, LOOK_MS);
    this.lookIsDue = true;
  }
}
