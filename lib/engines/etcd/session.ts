// One session: a lease, a stream of watches, and the holds and waits that live and die with the lease.
import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import { startDeadline } from '../../common/clock';
import { LockError } from '../../common/errors';
import type { LockMode, LockSnapshot } from '../../common/types';
import type { Answer, Grant, Leaving, Mark, Session, SessionEvents, Slot } from '../../remote/engine';
import { abandonedIn, infoIn } from './answers';
import type { Settings } from './config';
import {
  expiredError,
  forgottenError,
  missingRightsError,
  oldServerError,
  SERVER_VERSION_MIN,
  silentError,
  toLockError,
} from './errors';
import { kindOf, lastPart, SpaceKeys, slotOf } from './keys';
import { isUncertain, Lease, type LeaseEvents } from './lease';
import { type KeyValue, status, type WatchEvent } from './messages';
import { type Host, Place } from './place';
import { only, type Txn } from './txn';
import { isDeletion, Watcher } from './watcher';
import { Wire } from './wire';

/** How long it may take until the session can be used. */
const OPENING_MS_MAX = 5000;
/** How many holds and waits are given back in one transaction: etcd takes 128 operations at most, if not told otherwise. */
const GIVEN_BACK_MAX = 40;

export class EtcdSession implements Session, Host, LeaseEvents {
  readonly clientId: string;
  readonly keys: SpaceKeys;
  readonly lease: Lease;
  readonly watcher: Watcher;
  readonly thief: string;
  over = false;
  private readonly wire: Wire;
  private readonly places = new Map<number, Place>();
  /** By name: when the last one who asked to get in has been answered. */
  private readonly entrances = new Map<string, Promise<void>>();
  private readonly host = hostname();
  private opened = false;
  private stopped = false;
  /** The last one, of those from the beginning of the lease on. */
  private proof!: Parameters<LeaseEvents['certainFor']>;

  private constructor(
    private readonly settings: Settings,
    private readonly events: SessionEvents,
    endpoint: number,
  ) {
    this.wire = new Wire(settings, endpoint);
    this.lease = new Lease(this.wire, this);
    this.watcher = new Watcher(this.wire);
    this.keys = new SpaceKeys(settings.prefix, settings.namespace);
    this.clientId = this.lease.id.toString(16).padStart(16, '0');
    this.thief = `pid ${process.pid} thread ${threadId} of ${this.host}`;
  }

  static async open(settings: Settings, events: SessionEvents): Promise<EtcdSession> {
    const count = settings.endpoints.length;
    // Each one once. Not all programs begin with the same.
    const first = Math.floor(Math.random() * count);
    for (let tried = 0; ; ) {
      const session = new EtcdSession(settings, events, first + tried);
      try {
        await session.begin();
        return session;
      } catch (error) {
        session.drop();
        if (++tried === count || !isUncertain(error)) throw error;
      }
    }
  }

  // ---- what is asked of it

  async acquire(slot: Slot, how: 'wait' | 'try' | 'steal'): Promise<Answer> {
    const place = new Place(this, slot);
    this.places.set(slot.id, place);
    // If it fails, it is to be taken back.
    const answer = await place.acquire(how);
    if (answer.state === 'refused') this.places.delete(slot.id);
    return answer;
  }

  async withdraw({ id }: Slot): Promise<Grant | undefined> {
    return this.places.get(id)?.withdraw();
  }

  async release({ id }: Slot, leaving: Leaving): Promise<boolean> {
    return this.places.get(id)?.release(leaving) ?? false;
  }

  async downgrade({ id }: Slot, repaired: boolean): Promise<boolean> {
    return this.places.get(id)?.downgrade(repaired) ?? false;
  }

  async upgrade({ id }: Slot, how: 'wait' | 'try'): Promise<Answer> {
    return this.places.get(id)?.upgrade(how) ?? { state: 'refused' };
  }

  async query(name?: string): Promise<LockSnapshot> {
    const of = await this.look(name);
    const inOrder = (a: KeyValue, b: KeyValue) => a.createRevision - b.createRevision;
    const held = of('held').sort(inOrder);
    const holders = new Set(held.map(({ key }) => lastPart(key)));
    const pending = of('queue')
      .filter(({ key }) => !holders.has(lastPart(key)))
      .sort(inOrder);
    return { held: held.map(infoIn), pending: pending.map(infoIn) };
  }

  async marks(): Promise<Mark[]> {
    const of = await this.look();
    const alive = new Set(of('held').map(({ key }) => lastPart(key)));
    const marks = new Map<string, KeyValue>();
    const oldestFirst = of('mark').sort((a, b) => a.modRevision - b.modRevision);
    for (const mark of oldestFirst) if (!alive.has(lastPart(mark.key))) marks.set(infoIn(mark).name, mark);
    return [...marks].map(([name, mark]) => ({ name, abandoned: abandonedIn(mark) }));
  }

  async close(): Promise<void> {
    this.over = true;
    const leaving = await Promise.all([...this.places.values()].map((place) => place.leaving()));
    const txns = leaving.filter((txn) => txn !== undefined);
    while (txns.length > 0) {
      const does: Txn[] = txns.splice(0, GIVEN_BACK_MAX);
      await this.lease.transact('give everything back', { as: 'all', when: [], does });
    }
    const why = new LockError('ERR_LOCK_CLOSED', 'the session was closed');
    this.watcher.close();
    this.lease.stop(why);
    await this.lease.revoke().catch(() => {}); // it ends by itself
    this.wire.close(why);
  }

  drop(): void {
    this.stop(new LockError('ERR_LOCK_UNAVAILABLE', 'the session was given up'));
  }

  // ---- what a hold or wait needs of it

  describe(name: string, mode: LockMode): string {
    const { clientId, host } = this;
    return JSON.stringify({ name, mode, clientId, pid: process.pid, threadId, host, since: Date.now() });
  }

  granted(place: Place, grant: Grant): void {
    if (!this.over) this.events.granted(place.id, grant);
  }

  inOrder<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.entrances.get(name);
    const done = before === undefined ? work() : before.then(work);
    const answered = (): void => {
      if (this.entrances.get(name) === entrance) this.entrances.delete(name);
    };
    const entrance: Promise<void> = done.then(answered, answered);
    this.entrances.set(name, entrance);
    return done;
  }

  remove(place: Place): boolean {
    return this.places.delete(place.id);
  }

  robbed(id: number, thief: string): void {
    if (this.places.get(id)?.isHeard === true) this.rob(id, thief);
    else void this.robbedInTurn(id, thief);
  }

  private rob(id: number, thief: string): void {
    const { clientId, keys } = this;
    const place = this.places.get(id);
    if (place === undefined || this.over) return;
    this.places.delete(id);
    place.end();
    this.events.robbed(id, thief);
    this.lease
      .transact('take the word of a theft', {
        as: 'taken',
        when: [],
        does: [{ delete: only(keys.robbed(slotOf(clientId, id))) }],
      })
      .catch(() => {}); // it goes with the session
  }

  async readMail(): Promise<void> {
    const { keys, clientId } = this;
    const reply = await this.lease.read('look who was robbed', {
      as: 'looked',
      when: [],
      does: [{ as: 'mail', get: keys.mailbox(clientId), withValues: true }],
    });
    for (const mail of reply.all('mail')) this.robbed(...wordIn(mail));
  }

  forgotten(): void {
    this.ended(forgottenError());
  }

  failed(error: unknown): void {
    const { prefix } = this.settings;
    if ((error as LockError).code === 'ERR_LOCK_PERMISSION') this.ended(missingRightsError(prefix, error));
    else this.ended(toLockError('keep the session with etcd', error, prefix));
  }

  // ---- what the lease tells

  certainFor(...proof: Parameters<LeaseEvents['certainFor']>): void {
    this.proof = proof;
    if (this.opened) this.events.certainFor(...proof);
  }

  answered(): void {
    this.events.answered();
  }

  ended(why: LockError): void {
    if (this.over) return;
    if (this.opened) this.events.ended(why);
    this.stop(why);
  }

  // ----

  private async begin(): Promise<void> {
    const { version } = await this.wire.call('ask for the version', status, {});
    if (!isNewEnough(version)) throw oldServerError(version);
    const { clientId, keys, settings } = this;
    const value = JSON.stringify({ pid: process.pid, threadId, host: this.host, since: Date.now() });
    const revision = await this.lease.begin(settings.ttl, keys.session(clientId), value);
    await inTime(this.watchMailbox(revision), OPENING_MS_MAX);
    this.opened = true;
    this.events.certainFor(...this.proof);
  }

  /** Reads what is known of one name, or of all. @returns a function that tells of the keys of a kind */
  private async look(name?: string): Promise<(kind: string) => KeyValue[]> {
    const reply = await this.lease.read('look at the locks', {
      as: 'looked',
      when: [],
      does: [{ as: 'keys', get: this.keys.all(name), withValues: true }],
    });
    return (kind) => reply.all('keys').filter(({ key }) => kindOf(key) === kind);
  }

  /** Resolves when it has begun. Rejects if it can not, and the session is still to be opened. */
  private watchMailbox(from: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.watcher.watch(
        this.keys.mailbox(this.clientId),
        false,
        {
          begun: resolve,
          happened: (event) => this.mailboxChanged(event),
          missed: (why) => {
            if (!this.opened) reject(toLockError('watch the keys of the session', why, this.settings.prefix));
            else this.mailMissed(why).catch((error) => this.failed(error));
          },
        },
        from,
      );
    });
  }

  private async mailMissed(why: Error): Promise<void> {
    if (this.over) return;
    if ('code' in why) throw why;
    const { keys, clientId } = this;
    const reply = await this.lease.read('look at the session', {
      as: 'looked',
      when: [],
      does: [{ as: 'mail', get: keys.mailbox(clientId), withValues: true }],
    });
    void this.watchMailbox(reply.revision);
    for (const mail of reply.all('mail')) await this.robbedInTurn(...wordIn(mail));
    // Whether the key of the session is there, whatever is asked next will find.
  }

  private mailboxChanged(event: WatchEvent): void {
    const isOwnKey = event.kv.key.toString() === this.keys.session(this.clientId);
    if (isOwnKey && isDeletion(event)) this.ended(expiredError());
    else if (!isOwnKey && !isDeletion(event)) void this.robbedInTurn(...wordIn(event.kv));
  }

  /** Whoever has just been told of a grant has to hear that first. */
  private async robbedInTurn(id: number, thief: string): Promise<void> {
    await this.places.get(id)?.settled();
    this.rob(id, thief);
  }

  private stop(why: LockError): void {
    if (this.stopped) return;
    this.stopped = true;
    this.over = true;
    this.lease.stop(why);
    this.watcher.close();
    this.wire.abandon(why);
    // Others need not wait until it ends by itself.
    this.lease
      .revoke()
      .catch(() => {})
      .finally(() => this.wire.close(why));
  }
}

/** Who was robbed, and by whom. */
function wordIn({ key, value }: KeyValue): [id: number, thief: string] {
  return [Number(lastPart(key)), value.toString()];
}

function inTime(promise: Promise<void>, ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = startDeadline(() => reject(silentError(ms)), ms);
    promise.then(resolve, reject).finally(() => timer.clear());
  });
}

/** As `3.5.9`. */
function isNewEnough(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [majorMin = 0, minorMin = 0] = SERVER_VERSION_MIN.split('.').map(Number);
  return major > majorMin || (major === majorMin && minor >= minorMin);
}
