// What a case of the suite has at hand: a world of its own, this process in it, and peers. Nothing sleeps: who has begun to
// wait is seen in the queue before the next step is taken.
import { setImmediate as turn } from 'node:timers/promises';
import type { AcquireArgs, Call, Grant, Pending, RequestArgs, Snapshot } from '../support/party';
import { until } from '../support/until';
import type {
  ClassName,
  Infrastructure,
  LockInfo,
  LockManager,
  LockMode,
  LockSnapshot,
  NamedLock,
  Peer,
  SharedLock,
  Traits,
  World,
} from './infrastructure';

/** The name that a case uses when any name will do. */
export const name = 'ledger';

export const MODES = ['shared', 'exclusive'] as const;

/** The error of a call that throws it, or whose promise rejects with it. */
export async function errorOf(call: () => unknown): Promise<Error & { code?: string; cause?: unknown }> {
  try {
    await call();
  } catch (error) {
    return error as Error;
  }
  throw new Error(`it did not fail: ${call}`);
}

/** The call fails, with this code. */
export async function expectError(call: () => unknown, code: string): Promise<void> {
  expect(await errorOf(call)).toMatchObject({ name: 'LockError', code });
}

/** What the promise settles with, as long as that takes no more than this turn of the event loop. */
export async function atOnce<T>(promise: Promise<T>): Promise<T | 'late'> {
  return Promise.race([promise, turn('late' as const)]);
}

/** Sees whether a promise is settled. A rejection that nobody looks at is no error. */
export function track<T>(promise: Promise<T>): Pending<T> {
  const pending = { promise, settled: false };
  const settle = () => {
    pending.settled = true;
  };
  promise.then(settle, settle);
  return pending;
}

/** A promise, and what settles it. */
export function deferred<T = void>() {
  let resolve!: (value: T) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<T>((...both) => {
    [resolve, reject] = both;
  });
  return { promise, resolve, reject };
}

/** Who holds or waits, and how. */
export type Who = readonly [Other | Stage, LockMode];

/** A machine that is busy with other tests is late. */
export const LATE_MS = 5000;

export class Stage {
  /** Of this process. */
  readonly lock: SharedLock;
  readonly manager: LockManager;
  readonly pid = process.pid;
  readonly threadId = 0;
  private readonly others: Other[] = [];
  private identity: Promise<string> | undefined;

  constructor(
    readonly world: World,
    readonly traits: Traits,
  ) {
    this.lock = this.make('SharedLock');
    this.manager = new world.classes.LockManager(world.options);
  }

  /** A lock of this process. All have the methods of this class's type, but for those of each mode, which Lock has not. */
  make(className: ClassName, lockName: string = name): SharedLock {
    return new this.world.classes[className](lockName, this.world.options) as SharedLock;
  }

  makeAs<L extends NamedLock>(className: ClassName, lockName: string | undefined): L {
    return new this.world.classes[className](lockName, this.world.options) as unknown as L;
  }

  /** Another party. */
  async other(): Promise<Other> {
    const other = new Other(this, await this.world.startPeer());
    this.others.push(other);
    return other;
  }

  async twoOthers(): Promise<[Other, Other]> {
    return [await this.other(), await this.other()];
  }

  async threeOthers(): Promise<[Other, Other, Other]> {
    return [await this.other(), await this.other(), await this.other()];
  }

  /** Begins something that has to wait; resolves when it is in the queue. */
  async queue<T>(begin: () => Promise<T>): Promise<Pending<T>> {
    const before = (await this.query()).pending.length;
    const pending = track(begin());
    await until(async () => pending.settled || (await this.query()).pending.length > before);
    if (pending.settled) throw new Error(`it did not wait: ${await pending.promise}`);
    return pending;
  }

  /** Begins an upgrade that has to wait; resolves when newcomers are barred by it. */
  async queueUpgrade<T>(begin: () => Promise<T>, lockName: string = name): Promise<Pending<T>> {
    const pending = track(begin());
    await until(async () => pending.settled || (await this.isBarred(lockName)));
    if (pending.settled) throw new Error(`it did not wait: ${await pending.promise}`);
    return pending;
  }

  /** Everything that is held or waited for in this world. */
  query(): Promise<LockSnapshot> {
    return this.world.query();
  }

  /** As `query()` shows this process. */
  clientId(): Promise<string> {
    this.identity ??= (async () => {
      const lock = this.make('SharedLock', 'who am I');
      const guard = await lock.exclusive();
      const { held } = await lock.query();
      await guard.release();
      return held[0]!.clientId;
    })();
    return this.identity;
  }

  /** See {@link World.interrupt}. This process is another client afterwards. */
  async interrupt(why: Error): Promise<void> {
    await this.world.interrupt?.(why);
    this.identity = undefined;
  }

  /**
   * Those who hold, in any order, and those who wait, in the order of the queue: nobody else. What waits for several locks
   * is given in the order of `names`.
   */
  async expectState(
    held: readonly Who[],
    pending: readonly Who[] = [],
    names: readonly string[] = [],
  ): Promise<void> {
    const labels = (all: readonly Who[]) =>
      Promise.all(all.map(async ([who, mode]) => `${await who.clientId()} ${mode}`));
    const expected = { held: (await labels(held)).sort(), pending: await labels(pending) };
    const seen = await this.query();
    seen.pending.sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name));
    const shown = (infos: LockInfo[]) => infos.map(({ clientId, mode }) => `${clientId} ${mode}`);
    expect({ held: shown(seen.held).sort(), pending: shown(seen.pending) }).toEqual(expected);
  }

  async expectIdle(): Promise<void> {
    expect(await this.query()).toEqual({ held: [], pending: [] });
  }

  /** At the latest when a death is noticed. */
  async untilIdle(): Promise<void> {
    await this.untilDeadAreGone(0);
    await this.expectIdle();
  }

  /** Until there are no more than so many holds and waits, or those who were killed have to be gone. */
  async untilDeadAreGone(count: number): Promise<void> {
    const isSo = async () => Object.values(await this.query()).flat().length <= count;
    await until(isSo, { within: this.traits.deathMs + LATE_MS }).catch(() => {});
  }

  /** That there is a mark is what a shared guard tells, and nothing comes of asking. */
  async abandoned() {
    const guard = await this.make('SharedLock').shared();
    await guard.release();
    return guard.abandoned;
  }

  private async isBarred(lockName: string): Promise<boolean> {
    const guard = await this.make('SharedLock', lockName).tryShared();
    await guard?.release();
    return guard === null;
  }
}

let requests = 0;

/** A request of a LockManager of another party, which is queued or granted. */
export class Requested {
  readonly outcome: Pending<unknown>;
  /** How its callback was called; `null` if it never will be. */
  readonly called: Promise<Call | null>;

  constructor(
    private readonly other: Other,
    readonly args: RequestArgs,
  ) {
    const { party } = other.peer;
    this.outcome = party.begin('request', args);
    this.called = party.call('called', { request: args.as });
    this.called.catch(() => {});
  }

  async granted(): Promise<void> {
    const { name: wanted, options } = this.args;
    expect(await this.called).toEqual({
      args: [{ name: wanted, mode: options?.mode ?? 'exclusive' }],
      synchronous: false,
    });
  }

  /** Its callback comes to an end. */
  async fulfil(value: unknown = null): Promise<void> {
    await this.other.peer.party.call('fulfil', { request: this.args.as, value });
  }

  async finish(value: unknown = null): Promise<void> {
    await this.fulfil(value);
    expect(await this.outcome.promise).toEqual(value);
  }

  abort(reason: string): Promise<unknown> {
    return this.other.peer.party.call('abort', { guard: this.args.as, reason });
  }
}

/** Another party, as a case moves it. */
export class Other {
  private identity: Promise<string> | undefined;

  constructor(
    private readonly stage: Stage,
    readonly peer: Peer,
  ) {}

  get pid(): number {
    return this.peer.party.pid;
  }

  get threadId(): number {
    return this.peer.party.threadId;
  }

  acquire(mode: LockMode, args: Partial<AcquireArgs> = {}): Promise<Grant> {
    return this.peer.party.call('acquire', argsOf({ ...args, mode }));
  }

  /** Begins an acquire that has to wait; resolves when it is in the queue. */
  queue(mode: LockMode, args: Partial<AcquireArgs> = {}): Promise<Pending<Grant>> {
    return this.stage.queue(() => this.acquire(mode, args));
  }

  try(mode: LockMode, args: Partial<AcquireArgs> = {}): Promise<Grant | null> {
    return this.peer.party.call('tryAcquire', argsOf({ ...args, mode }));
  }

  release(guard: string = name): Promise<void> {
    return this.peer.party.release(guard);
  }

  downgrade(guard: string = name): Promise<unknown> {
    return this.peer.party.call('downgrade', { guard });
  }

  upgrade(args: { guard?: string; timeout?: number } = {}): Promise<Grant> {
    return this.peer.party.call('upgrade', { guard: name, ...args });
  }

  /** Ends an acquire or upgrade that waits. */
  abort(reason: string, guard: string = name): Promise<unknown> {
    return this.peer.party.call('abort', { guard, reason });
  }

  query(args: Partial<AcquireArgs> = {}): Promise<Snapshot> {
    return this.peer.party.query(argsOf(args));
  }

  request(options: RequestArgs['options'] & { name?: string; signal?: boolean } = {}): Requested {
    const { name: wanted = name, signal = false, ...rest } = options;
    const { namespace } = this.stage.world;
    const as = `request ${++requests}`;
    return new Requested(this, { namespace, name: wanted, as, options: rest, signal });
  }

  /** A request that has to wait; resolves when it is in the queue. */
  async queueRequest(options: Parameters<Other['request']>[0] = {}): Promise<Requested> {
    let requested!: Requested;
    await this.stage.queue(() => {
      requested = this.request(options);
      return requested.outcome.promise;
    });
    return requested;
  }

  async holdRequest(options: Parameters<Other['request']>[0] = {}): Promise<Requested> {
    const requested = this.request(options);
    await requested.granted();
    return requested;
  }

  /** As `query()` shows it. */
  clientId(): Promise<string> {
    this.identity ??= (async () => {
      const probe = { name: 'who am I', as: 'who am I' };
      await this.acquire('exclusive', probe);
      const { held } = await this.query(probe);
      await this.release(probe.as);
      return held[0]!.clientId;
    })();
    return this.identity;
  }

  /** As `kill -9`; in that moment whatever it was told to do comes to nothing. */
  kill(): Promise<void> {
    return this.peer.kill();
  }
}

/** Strict order is what all engines have in common, and what shared memory has to be asked for. */
const argsOf = (args: Partial<AcquireArgs>): AcquireArgs => ({ name, fair: true, ...args });

/** A test of the property that is named, in a world of its own. In the end nothing is held there, and nobody waits. */
export type Property = (property: string, check: (stage: Stage) => Promise<void>) => void;

/** One topic of the suite. */
export type Cases = (property: Property, traits: Traits) => void;

/** The worlds of the test that is running. */
const open: World[] = [];

/** Makes a test of each property, over this engine. */
export function conform(infrastructure: Infrastructure, topics: Record<string, Cases>): void {
  const { kind, traits } = infrastructure;

  afterEach(async () => {
    for (const world of open.splice(0)) await world.destroy();
  });

  const property: Property = (what, check) => {
    test(what, async () => {
      const world = await infrastructure.open();
      open.push(world);
      const stage = new Stage(world, traits);
      await check(stage);
      await stage.untilIdle();
    });
  };

  describe.each(Object.entries(topics))(`${kind}: %s`, (_, cases) => cases(property, traits));
}
