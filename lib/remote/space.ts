// An engine as one program uses it: the session there is now, what is asked of it, and how another one is opened.
import type { InspectOptions } from 'node:util';
import { keepAlive, startDeadline, startTimer, type Timer } from '../common/clock';
import {
  argumentTypeError,
  type LockError,
  outOfRangeError,
  shown,
  spaceClosedError,
  syncError,
  unavailableError,
} from '../common/errors';
import { INSPECT, type Inspect } from '../common/inspect';
import { type Acquire, checkNamespace, checkObject } from '../common/options';
import type { LockInfo, LockMode, LockSnapshot } from '../common/types';
import { ANSWER_MS_MAX, type Connected, Connection } from './connection';
import type { Engine, Mark, Session } from './engine';
import type { Hold, LockRecord } from './hold';
import { Wait, type WaitedSpace, type WaitWatchers } from './wait';

/** How long until an engine that could not be reached is tried again: at first, and at most. */
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 1000;

/** How a space is opened. */
export interface SpaceOptions {
  /**
   * 1 to 64 characters of `A-Z a-z 0-9 . _ -`. Locks of different namespaces have nothing to do with each other.
   * @default 'default'
   */
  namespace?: string;
  /**
   * In milliseconds, at least 1,000: for how long the engine keeps what a program holds that it does not hear from. A program
   * gives its holds up earlier, after four fifths of that.
   * @default 10_000
   */
  ttl?: number;
}

/** A world of locks that several programs share, over whatever engine: `new SharedLock('ledger', { space })`. */
export interface Space extends AsyncDisposable {
  /** What it is over. */
  readonly kind: 'postgres' | 'etcd' | 'memory';
  /** As given or `'default'`. */
  readonly namespace: string;
  /**
   * Every lock of the space that is held or waited for, by whatever program.
   * @throws {LockError} `ERR_LOCK_UNAVAILABLE`, `ERR_LOCK_CLOSED`
   */
  query(): Promise<LockSnapshot>;
  /**
   * Ends everything that this program has in it: pending acquires reject with `ERR_LOCK_CLOSED`, what is held is released. A
   * second call does nothing more.
   */
  close(): Promise<void>;
}

const TTL_MS_DEFAULT = 10_000;
const TTL_MS_MIN = 1000;
const TTL_MS_MAX = 2 ** 31 - 1;

/** @internal The common options of all engines, checked. */
export function checkSpaceOptions(options: SpaceOptions): Required<SpaceOptions> {
  checkObject('options', options);
  const namespace = checkNamespace(options.namespace);
  const { ttl = TTL_MS_DEFAULT } = options;
  if (typeof ttl !== 'number') throw argumentTypeError('options.ttl', 'of type number', ttl);
  if (!(ttl >= TTL_MS_MIN && ttl <= TTL_MS_MAX)) {
    throw outOfRangeError('options.ttl', `>= ${TTL_MS_MIN} and <= ${TTL_MS_MAX}`, ttl);
  }
  return { namespace, ttl };
}

/** What is asked again in each new session until it is answered. */
interface Request {
  submit(connection: Connection): void;
  fail(error: unknown): void;
}

/** @internal What a {@link Space} is. */
export class EngineSpace implements Space, Connected, WaitedSpace {
  readonly kind: Engine['kind'];
  readonly namespace: string;
  /** @internal Where locks of this namespace are, beside others of the same. */
  readonly origin: string;
  private readonly engine: Engine;
  private connection: Connection | undefined = undefined;
  /** While a session is being opened. */
  private opening: Promise<void> | undefined = undefined;
  private retry: Timer | undefined = undefined;
  private retryMs = RETRY_MS_MIN;
  private failure: unknown = undefined;
  private readonly requests = new Set<Request>();
  private closing: Promise<void> | undefined = undefined;
  private pendingCount = 0;
  private alive: Timer | undefined = undefined;
  private readonly records = new Map<string, WeakRef<LockRecord>>();
  /** Who holds it, as far as that was asked and is not answered yet: by limit and name. */
  private readonly asked = new Map<string, Promise<LockInfo[]>>();
  private readonly droppedRecords = new FinalizationRegistry<string>((name) => {
    if (this.records.get(name)?.deref() === undefined) this.records.delete(name);
  });

  /** @internal Spaces come from engines. */
  constructor(engine: Engine) {
    this.engine = engine;
    this.kind = engine.kind;
    this.namespace = engine.namespace;
    this.origin = `${engine.kind} ${engine.origin}`;
  }

  query(): Promise<LockSnapshot> {
    return this.snapshot(undefined, ANSWER_MS_MAX);
  }

  close(): Promise<void> {
    this.closing ??= this.pending(this.end());
    return this.closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal To programs without types. */
  [Symbol.dispose](): never {
    throw syncError({ name: this.namespace }, '[Symbol.dispose]()', '`await using`, or close()');
  }

  /** @internal Plain data, for `JSON.stringify()`. */
  toJSON(): { kind: Space['kind']; namespace: string } {
    return { kind: this.kind, namespace: this.namespace };
  }

  /** @internal */
  [INSPECT](_depth: number, options: InspectOptions, inspect: Inspect): string {
    const { kind, namespace } = this;
    return `Space ${inspect(kind, options)} ${inspect({ namespace }, options)}`;
  }

  /** @internal Opens a session, and asks there for what is to be asked. */
  async connect(): Promise<void> {
    const connection = new Connection(this);
    connection.open(await this.pending(this.engine.open(connection)));
    if (connection.over !== undefined) throw connection.over;
    this.connection = connection;
    // In the same turn: whoever asks once there is a connection asks there, and nobody is to be asked for twice.
    for (const request of [...this.requests]) {
      if (this.connection !== connection) break;
      request.submit(connection);
    }
  }

  /** @internal What stands for the lock of this name. */
  recordOf(name: string): LockRecord {
    const known = this.records.get(name)?.deref();
    if (known !== undefined) return known;
    const record = { name, namespace: this.namespace };
    this.records.set(name, new WeakRef(record));
    this.droppedRecords.register(record, name);
    return record;
  }

  /** @internal Takes a lock, or waits for it: see {@link Wait.begin}. */
  acquire(
    record: LockRecord,
    mode: LockMode,
    how: 'wait' | 'try' | 'steal',
    options: Pick<Acquire, 'timeout' | 'signal'>,
    watchers: WaitWatchers = {},
  ): Promise<Hold | undefined> {
    return Wait.begin(this, record, mode, how, options, watchers);
  }

  /** @internal Of one name, or of all. */
  snapshot(name: string | undefined, limitMs: number): Promise<LockSnapshot> {
    const what = name === undefined ? 'query the space' : `query ${shown(name)}`;
    return this.look(what, limitMs, (session) => session.query(name));
  }

  /** @internal What dead holders have left. */
  marks(): Promise<Mark[]> {
    return this.look('look for marks of the dead', ANSWER_MS_MAX, (session) => session.marks());
  }

  /** Asks what changes nothing: in a new session once more, if this one ends. */
  private look<T>(what: string, limitMs: number, question: (session: Session) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        timer.clear();
        this.removeRequest(request);
      };
      const fail = (error: unknown): void => {
        settle();
        reject(error);
      };
      const timer = startDeadline(() => fail(unavailableError(what, this.failure)), limitMs);
      const request: Request = {
        submit: (connection) => {
          question(connection.session).then(
            (answer) => {
              settle();
              resolve(answer);
            },
            (error) => {
              if (connection.over === undefined) fail(error);
            },
          );
        },
        fail,
      };
      this.addRequest(request);
    });
  }

  // ---- what waits and connections need of it

  /** @internal One question for all who want to know at a time: many waits may end together. */
  heldBy(name: string, limitMs: number): Promise<LockInfo[]> {
    const key = `${limitMs} ${name}`;
    let asked = this.asked.get(key);
    if (asked === undefined) {
      asked = this.snapshot(name, limitMs)
        .then(({ held }) => held)
        .finally(() => this.asked.delete(key));
      this.asked.set(key, asked);
    }
    return asked;
  }

  /** @internal */
  get unreachable(): unknown {
    return this.failure;
  }

  /** @internal */
  addRequest(request: Request): void {
    if (this.closing !== undefined) {
      request.fail(spaceClosedError());
      return;
    }
    if (!this.requests.has(request)) this.addPending();
    this.requests.add(request);
    this.connection?.expireIfOverdue();
    if (this.connection === undefined) this.reconnect();
    else request.submit(this.connection);
  }

  /** @internal */
  removeRequest(request: Request): void {
    if (this.requests.delete(request)) this.endPending();
  }

  /** @internal */
  pending<T>(promise: Promise<T>): Promise<T> {
    this.addPending();
    return promise.finally(() => this.endPending());
  }

  /** @internal */
  disconnected(connection: Connection): void {
    this.failure = connection.over;
    if (this.connection === connection) this.connection = undefined;
  }

  /** @internal Opens another session, if there is none and somebody needs it. */
  reconnect(): void {
    if (this.connection !== undefined || this.opening !== undefined || this.retry !== undefined) return;
    if (this.requests.size === 0 || this.closing !== undefined) return;
    this.opening = this.connect().then(
      () => this.opened(),
      (error) => this.notOpened(error),
    );
  }

  private opened(): void {
    this.opening = undefined;
    this.failure = undefined;
    this.retryMs = RETRY_MS_MIN;
    this.reconnect(); // should it be over already
  }

  private notOpened(error: LockError): void {
    this.opening = undefined;
    this.failure = error;
    if (error.code !== 'ERR_LOCK_UNAVAILABLE') {
      for (const request of [...this.requests]) request.fail(error);
      return;
    }
    this.retry = startTimer(() => {
      this.retry = undefined;
      this.reconnect();
    }, this.retryMs);
    this.retryMs = Math.min(this.retryMs * 2, RETRY_MS_MAX);
  }

  private async end(): Promise<void> {
    for (const request of [...this.requests]) request.fail(spaceClosedError());
    this.retry?.clear();
    await this.opening;
    const { connection } = this;
    if (connection === undefined) return;
    const closed = connection.ask('close the space', (session) => session.close());
    connection.end(spaceClosedError());
    try {
      await closed;
    } catch {
      connection.session.drop();
    }
  }

  private addPending(): void {
    if (++this.pendingCount === 1) this.alive = keepAlive();
  }

  private endPending(): void {
    if (--this.pendingCount === 0) this.alive?.clear();
  }
}

/** @internal Whether it is a space of this package. */
export function isSpace(value: unknown): value is EngineSpace {
  return value instanceof EngineSpace;
}
