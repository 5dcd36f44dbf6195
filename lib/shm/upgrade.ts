// From shared to exclusive: at once, or when all others have released.
import { type LockError, lostError, secondUpgradeError } from '../common/errors';
import type { Acquire } from '../common/options';
import type { Ownable, Owner } from '../common/owner';
import { ownedBy } from './deadlock';
import { errorOf, Status } from './errors';
import type { Hold, PendingUpgrade } from './hold';
import { stolenError } from './losses';
import { Pending, timedOut } from './pending';

type Options = Pick<Acquire, 'timeout' | 'signal'>;

/** A guard, as far as it can be upgraded. */
interface Upgradable extends Ownable {
  readonly hold: Hold;
}

/** Shared to exclusive, if nobody else holds the lock: a status. */
function attempt(hold: Hold): number {
  const { index, ready, record } = hold;
  const { binding } = ready.native;
  let status = binding.tryUpgrade(index);
  if (status === Status.BUSY) {
    record.look('upgrade'); // those who hold it may have died
    status = binding.tryUpgrade(index);
  }
  if (status === Status.OK) hold.becomeExclusive();
  ready.settle();
  return status;
}

/**
 * Never waits.
 * @returns whether it is exclusive now
 * @throws {LockError} what has ended the hold
 */
export function tryUpgrade(hold: Hold): boolean {
  const status = attempt(hold);
  if (status === Status.OK) return true;
  if (status === Status.BUSY || status === Status.UPGRADING || status === Status.STALLED) return false;
  throw errorOfUpgrade(status, hold);
}

/** Waits until nobody else holds the lock, ahead of all who wait for it. `owner`: who waits, for whoever looks for deadlocks. */
export async function upgrade(guard: Upgradable, options: Options, owner: Owner | undefined): Promise<void> {
  const { hold } = guard;
  if (options.timeout > 0) return Upgrade.begin(guard, options, owner);
  const status = attempt(hold);
  if (status === Status.BUSY || status === Status.STALLED) throw timedOutUpgrade(hold, 0);
  if (status !== Status.OK) throw errorOfUpgrade(status, hold);
}

/** A hold that waits to be upgraded. */
class Upgrade extends Pending implements PendingUpgrade {
  private constructor(
    readonly guard: Upgradable,
    options: Options,
    private readonly owner: Owner | undefined,
    private readonly resolve: () => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    super(guard.hold.record, options, undefined, true);
    guard.hold.upgrade = this;
  }

  static begin(guard: Upgradable, options: Options, owner: Owner | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      new Upgrade(guard, options, owner, resolve, reject).start();
    });
  }

  enqueue(): boolean {
    const { ready } = this;
    const { hold } = this.guard;
    const status = ready.native.binding.upgrade(hold.index);
    if (status === Status.STALLED) return true;
    if (status === Status.AGAIN) {
      this.queued(hold.index);
      return false;
    }
    this.finish(status, hold.index);
    return false;
  }

  protected owned(): number[] | undefined {
    return ownedBy(this.owner, this.guard, this.ready.native);
  }

  protected isToFail(): boolean {
    return false;
  }

  protected timedOut(): unknown {
    return timedOutUpgrade(this.guard.hold, this.timeout, true);
  }

  protected override end(): void {
    super.end();
    this.guard.hold.upgrade = undefined;
  }

  protected refuse(reason: unknown): void {
    this.reject(reason);
  }

  protected settle(status: number): void {
    const { hold } = this.guard;
    if (status === Status.OK) {
      hold.becomeExclusive();
      this.resolve();
    } else this.reject(errorOfUpgrade(status, hold));
  }
}

function timedOutUpgrade({ record }: Hold, timeoutMs: number, together = false): LockError {
  return timedOut(record, 'upgrade to exclusive', timeoutMs, undefined, together);
}

function errorOfUpgrade(status: number, { record, token }: Hold): LockError {
  if (status === Status.UPGRADING) return secondUpgradeError(record);
  if (status === Status.STOLEN) return stolenError(record, token);
  const error = errorOf(status, 'upgrade', record);
  return status === Status.REMOVED ? lostError(record, error) : error;
}
