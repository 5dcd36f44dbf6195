// From shared to exclusive: what waits for that, and what becomes of it: see pending.ts.
import { lostError, secondUpgradeError, shown, timeoutError, unavailableError } from '../common/errors';
import type { Acquire } from '../common/options';
import type { Connection } from './connection';
import type { Grant, Session, Slot } from './engine';
import type { Hold, PendingUpgrade, Upgradable } from './hold';
import { Pending, WITHDRAWAL_MS_MAX } from './pending';

/** A pending upgrade of a hold. */
export class Upgrade extends Pending implements PendingUpgrade {
  protected readonly slot: Hold;

  private constructor(
    readonly guard: Upgradable,
    private readonly how: 'wait' | 'try',
    options: Pick<Acquire, 'timeout' | 'signal'>,
    private readonly resolve: (upgraded: boolean) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    super(options);
    const { hold: slot } = guard;
    this.slot = slot;
    slot.upgrade = this;
    this.put(slot.connection, () => slot.connection.session.upgrade(slot, how));
  }

  /** Resolves with whether it is exclusive now; rejects instead of `false` unless that is a `try`. */
  static begin(
    guard: Upgradable,
    how: 'wait' | 'try',
    options: Pick<Acquire, 'timeout' | 'signal'>,
  ): Promise<boolean> {
    return guard.hold.connection.pending(
      new Promise((resolve, reject) => {
        new Upgrade(guard, how, options, resolve, reject);
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

  protected giveBack(session: Session, slot: Slot): Promise<unknown> {
    return session.downgrade(slot, false);
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
