// What tests of an engine have at hand: a server for all tests of a file; spaces, processes and proxies that end with each test.
// Each engine has a fixture of its own, which says how its server is reached, and in what the engine differs from the others.
import { SharedLock, type Space } from '../../lib/remote';
import type { SpaceOptions } from '../../lib/remote/space';
import { until } from '../support/until';
import type { Field } from './checker/run';
import { NetworkProxy } from './proxy';
import { Worker } from './worker';

/** A machine that is busy with other tests is late. */
export const LATE_MS = 3000;

/** Where an engine's spaces are opened. */
export type Address = string | string[];

export interface Server {
  readonly port: number;
  stop(): Promise<void>;
}

export abstract class EngineFixture<
  S extends Server = Server,
  Options extends SpaceOptions = SpaceOptions,
  Where extends Address = Address,
> {
  server!: S;
  /** Of the test: a name of its own. */
  name = '';
  /** The entry of the package, whose `connect` opens a space. */
  abstract readonly entry: 'postgres' | 'etcd';
  /** For leases that are to run out, in milliseconds. */
  abstract readonly ttlMs: number;
  /** So long after a process was killed the next one has its lock, at the latest. */
  abstract readonly deathMs: number;
  /** A session ends with its connection: what it holds is lost, what it waits for is queued again in the next one. */
  abstract readonly sessionsBreak: boolean;
  /** The server gives a lock to the next one in the queue. If not, that one takes it when it hears that it may. */
  abstract readonly serverGrants: boolean;
  /** So many waits make a long queue, which is still drained in seconds. */
  abstract readonly longQueue: number;
  /** Options of spaces, each of which keeps its locks apart from those of the others. */
  abstract readonly apart: readonly Options[];
  protected readonly defaults: SpaceOptions = {};
  /** Of processes that may be killed. */
  protected readonly mortal: SpaceOptions = {};
  private number = 0;
  private readonly ends: Array<() => Promise<unknown>> = [];

  /** To be called where tests are described. */
  constructor(start: () => Promise<S>) {
    beforeAll(async () => {
      this.server = await start();
    });
    afterAll(() => this.server?.stop());
    beforeEach(() => {
      this.name = `lock ${++this.number}`;
    });
    afterEach(async () => {
      for (const end of this.ends.splice(0).reverse()) await end();
    });
  }

  /** Of the server. */
  abstract get where(): Where;
  /** The same through a proxy. */
  abstract through(proxy: NetworkProxy): Where;
  protected abstract connect(where: Where, options: SpaceOptions): Promise<Space>;

  /** How much the server keeps of the lock of the test: of holds, waits, marks, and thefts that nobody was told of yet. */
  abstract traces(): Promise<number>;
  /** How much it keeps of all sessions, and of what is theirs. */
  abstract leftovers(): Promise<number>;
  /** How many events it has told its clients of so far, if it counts them. */
  events?(): Promise<number>;

  /** Done when the test is over. */
  atEnd(end: () => Promise<unknown>): void {
    this.ends.push(end);
  }

  async space(options: Partial<Options> = {}, where: Where = this.where): Promise<Space> {
    const space = await this.connect(where, { ...this.defaults, ...options });
    this.atEnd(() => space.close());
    return space;
  }

  async lock(options: Partial<Options> = {}, where: Where = this.where): Promise<SharedLock> {
    return new SharedLock(this.name, { space: await this.space(options, where) });
  }

  async twoLocks(): Promise<[SharedLock, SharedLock]> {
    return [await this.lock(), await this.lock()];
  }

  /** Another process. */
  async child(options: Partial<Options> = {}, where: Where = this.where): Promise<Worker> {
    const child = await Worker.start(this.entry, where, { ...this.mortal, ...options });
    this.atEnd(async () => {
      if (!child.hasEnded) await child.kill();
    });
    return child;
  }

  async proxy(): Promise<NetworkProxy> {
    const proxy = await NetworkProxy.start(this.server.port);
    this.atEnd(() => proxy.stop());
    return proxy;
  }

  /** For the checker. */
  field(ttlMs: number, breaks: Field['breaks']): Field {
    const { entry, sessionsBreak } = this;
    return {
      ttlMs,
      sessionsBreak,
      breaks,
      proxy: () => this.proxy(),
      opening: (proxy) => [entry, 'connect', [this.through(proxy), { ttl: ttlMs }]],
    };
  }

  /** Waits until so many wait for the lock of the test. */
  async untilPending(lock: SharedLock, count: number): Promise<void> {
    await until(async () => (await lock.query()).pending.length === count, { within: 30_000 });
  }
}
