// Pending acquires of this thread.
import { now } from '../common/clock';
import { deadlockError } from '../common/errors';
import type { Acquire } from '../common/options';
import type { LockMode } from '../common/types';
import { Report } from './binding';
import { errorOf, Status } from './errors';
import type { Hold } from './hold';
import { Pending, timedOut } from './pending';
import type { LockRecord } from './record';

/** One pending acquire. */
export class Wait extends Pending {
  private constructor(
    private readonly record: LockRecord,
    private readonly way: number,
    private readonly mode: LockMode,
    options: Acquire,
    private readonly group: Set<Wait> | undefined,
    private readonly steals: boolean,
    private readonly resolve: (hold: Hold) => void,
    private readonly reject: (reason: unknown) => void,
  ) {
    super(record.ready, options);
    group?.add(this);
    record.addUse();
  }

  /** Queues for the lock, or steals it. `group` has the wait for as long as it is pending. */
  static begin(
    record: LockRecord,
    way: number,
    mode: LockMode,
    options: Acquire,
    group?: Set<Wait>,
    steals = false,
  ): Promise<Hold> {
    return new Promise((resolve, reject) => {
      new Wait(record, way, mode, options, group, steals, resolve, reject).start();
    });
  }

  enqueue(): boolean {
    const { ready, record, steals, way } = this;
    const index = steals ? record.steal(way) : record.enqueue(way, true);
    if (index === Status.STALLED) return true;
    if (index >= 0 && !steals && ready.native.reported(Report.GRANTED) === 0) {
      this.queued(index);
      return false;
    }
    this.end();
    this.settle(index >= 0 ? Status.OK : index, index);
    return false;
  }

  protected timedOut(): unknown {
    return timedOut(this.record, this.mode, this.timeout);
  }

  protected override end(): void {
    super.end();
    this.group?.delete(this);
  }

  protected refuse(reason: unknown): void {
    this.reject(reason);
    this.record.endUse();
  }

  protected settle(status: number, index: number): void {
    const { record, mode } = this;
    if (status === Status.OK) this.resolve(record.holds.granted(record, index, mode));
    else this.reject(errorOf(status, `acquire (${mode})`, record));
    record.endUse(); // after its hold has begun: the lock is not closed in between
  }
}

/** Blocks this thread until the lock is granted, for at most `timeoutMs`. */
export function waitSync(record: LockRecord, way: number, mode: LockMode, timeoutMs: number): Hold {
  const { ready } = record;
  if (record.isHeldByThread()) throw deadlockError(record, mode);
  try {
    const hold = blockUntil(now() + timeoutMs, record, way, mode);
    if (hold === undefined) throw timedOut(record, mode, timeoutMs);
    return hold;
  } finally {
    ready.settle(); // asynchronous waits of this thread, which were poked meanwhile
  }
}

/** Blocks in slices, between which a worker can be terminated. `undefined`: the time is up. */
function blockUntil(deadline: number, record: LockRecord, way: number, mode: LockMode): Hold | undefined {
  const { native } = record.ready;
  let index = record.enqueue(way, false);
  while (index === Status.STALLED && now() < deadline) {
    index = record.enqueue(way, false);
  }
  if (index === Status.STALLED) return undefined;
  if (index < 0) throw errorOf(index, `acquire (${mode})`, record);
  if (native.reported(Report.GRANTED) !== 0) return record.holds.granted(record, index, mode);
  for (;;) {
    const status = native.binding.wait(index, Math.max(deadline - now(), 0));
    if (status === Status.OK) return record.holds.granted(record, index, mode);
    if (status !== Status.AGAIN) throw errorOf(status, `acquire (${mode})`, record);
    if (now() < deadline) continue;
    native.binding.withdraw(index);
    return undefined;
  }
}
