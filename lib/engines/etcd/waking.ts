// What wakes a wait when it may be its turn: whoever is in the way goes, or a pause is over.
import { startSoon, startTimer, type Timer } from '../../common/clock';
import type { Lease } from './lease';
import type { KeyValue } from './messages';
import type { Watcher } from './watcher';

/** What it needs of the session. */
export interface WakingHost {
  readonly lease: Lease;
  readonly watcher: Watcher;
  failed(error: unknown): void;
}

export class Waking {
  private watchId: number | undefined = undefined;
  private timer: Timer | undefined = undefined;

  constructor(
    private readonly host: WakingHost,
    private readonly then: () => void,
  ) {}

  /** @param blocker whoever is in the way; nobody if it is gone by now */
  whenGone(blocker: KeyValue | undefined): void {
    if (blocker === undefined) {
      startSoon(() => this.wake(), false);
      return;
    }
    const { key } = blocker;
    const { watcher } = this.host;
    this.watchId = watcher.watch({ key }, true, {
      begun: () => void this.lookWhetherItIsGone(key),
      happened: () => this.wake(),
      missed: (why) => {
        if ('code' in why) this.host.failed(why);
        else this.wake();
      },
    });
  }

  after(ms: number): void {
    this.timer = startTimer(() => this.wake(), ms);
  }

  off(): void {
    this.timer?.clear();
    if (this.watchId === undefined) return;
    this.host.watcher.unwatch(this.watchId);
    this.watchId = undefined;
  }

  /** Before the watch of that key had begun, which tells of what comes later. */
  private async lookWhetherItIsGone(key: Buffer): Promise<void> {
    const { watchId } = this;
    try {
      const reply = await this.host.lease.read('look whom a lock waits for', {
        as: 'looked',
        when: [],
        does: [{ as: 'blocker', get: { key } }],
      });
      if (this.watchId === watchId && reply.first('blocker') === undefined) this.wake();
    } catch (error) {
      this.host.failed(error);
    }
  }

  private wake(): void {
    this.off();
    this.then();
  }
}
