// The engine itself: who holds which lock, and who waits for it, in plain objects. What another engine keeps in tables or
// keys is meant to mean the same as this.
//
// A lock is granted strictly in the order of its queue: nobody passes a waiter that came earlier, but the holder that is to be
// upgraded, which is ahead of them all. Readers are granted together with those behind them.
import type { Abandoned, LockInfo, LockMode, LockSnapshot } from '../../common/types';
import type { Answer, Grant, Leaving, Mark } from '../../remote/engine';

/** Who asks: one session. What it is told comes in the middle of a change, and must not cause another one at once. */
export interface Client {
  readonly clientId: string;
  readonly pid: number;
  readonly threadId: number;
  readonly host: string;
  granted(id: number, grant: Grant): void;
  robbed(id: number, thief: string): void;
}

/** One hold or wait. */
interface Place {
  readonly client: Client;
  readonly id: number;
  mode: LockMode;
  /** Milliseconds since the epoch: when it was queued, or granted. */
  since: number;
  token: bigint;
  /** Its token when it was to be upgraded: a grant that is the answer to that has a greater one. */
  tokenBefore: bigint;
}

/** One name. */
interface Lock {
  readonly held: Set<Place>;
  /** In the order in which they came. */
  readonly queue: Set<Place>;
  /** The shared holder that is to become the exclusive one. */
  upgrading: Place | undefined;
  /** Of the last exclusive grant. */
  token: bigint;
  abandoned: Abandoned | null;
  flights: number;
}

let servers = 0;

export class Server {
  /** Of this thread. */
  readonly number = ++servers;

  private readonly locks = new Map<string, Lock>();
  /** By client, and by the client's id: the place, and the name of its lock. */
  private readonly places = new Map<Client, Map<number, { name: string; place: Place }>>();
  /** The greatest of all tokens. A lock that was forgotten begins anew from here, so that the tokens of a name never go back. */
  private lastToken = 0n;

  enter(client: Client): void {
    this.places.set(client, new Map());
  }

  acquire(client: Client, id: number, name: string, mode: LockMode, how: 'wait' | 'try' | 'steal'): Answer {
    const lock = this.lockOf(name);
    const place: Place = { client, id, mode, since: Date.now(), token: 0n, tokenBefore: -1n };
    if (how === 'steal') this.rob(lock, client);
    const free = how === 'steal' || (lock.queue.size === 0 && isFree(lock, mode));
    if (!free && how === 'try') return { state: 'refused' };
    this.placesOf(client).set(id, { name, place });
    if (free) return { state: 'granted', grant: this.grant(lock, place) };
    lock.queue.add(place);
    return { state: 'queued', flights: lock.flights };
  }

  withdraw(client: Client, id: number): Grant | undefined {
    const found = this.placesOf(client).get(id);
    if (found === undefined) return undefined;
    const { name, place } = found;
    const lock = this.lockOf(name);
    if (lock.upgrading === place) lock.upgrading = undefined;
    else if (lock.held.has(place)) return place.token > place.tokenBefore ? grantOf(lock, place) : undefined;
    else this.remove(found, client);
    this.grantNext(name, lock);
    return undefined;
  }

  release(client: Client, id: number, { repaired, flight }: Leaving): boolean {
    const found = this.placesOf(client).get(id);
    if (found === undefined) return false;
    const lock = this.lockOf(found.name);
    if (repaired) lock.abandoned = null;
    if (flight) lock.flights++;
    this.remove(found, client);
    this.grantNext(found.name, lock);
    return true;
  }

  downgrade(client: Client, id: number, repaired: boolean): boolean {
    const found = this.placesOf(client).get(id);
    if (found === undefined) return false;
    const { name, place } = found;
    const lock = this.lockOf(name);
    place.mode = 'shared';
    if (repaired) lock.abandoned = null;
    this.grantNext(name, lock);
    return true;
  }

  upgrade(client: Client, id: number, how: 'wait' | 'try'): Answer {
    const found = this.placesOf(client).get(id);
    if (found === undefined) return { state: 'refused' };
    const { name, place } = found;
    const lock = this.lockOf(name);
    place.tokenBefore = place.token;
    if (lock.upgrading !== undefined) return { state: 'refused' };
    if (lock.held.size === 1) return { state: 'granted', grant: this.promote(lock, place) };
    if (how === 'try') return { state: 'refused' };
    lock.upgrading = place;
    return { state: 'queued', flights: lock.flights };
  }

  query(wanted: string | undefined): LockSnapshot {
    const names = wanted === undefined ? [...this.locks.keys()] : [wanted];
    const held: LockInfo[] = [];
    const pending: LockInfo[] = [];
    for (const name of names) {
      const lock = this.locks.get(name);
      if (lock === undefined) continue;
      for (const place of lock.held) held.push(infoOf(name, place));
      for (const place of lock.queue) pending.push(infoOf(name, place));
    }
    return { held, pending };
  }

  marks(): Mark[] {
    return [...this.locks].flatMap(([name, { abandoned }]) =>
      abandoned === null ? [] : [{ name, abandoned }],
    );
  }

  /** The session is over. @param died whether what it holds exclusively is abandoned, or released */
  leave(client: Client, died: boolean): void {
    const places = this.places.get(client);
    if (places === undefined) return;
    this.places.delete(client);
    const names = new Set<string>();
    for (const found of places.values()) {
      const { name, place } = found;
      const lock = this.lockOf(name);
      if (died && lock.held.has(place) && place.mode === 'exclusive') lock.abandoned = abandonedBy(place);
      this.remove(found, client);
      names.add(name);
    }
    for (const name of names) this.grantNext(name, this.lockOf(name));
  }

  private lockOf(name: string): Lock {
    let lock = this.locks.get(name);
    if (lock === undefined) {
      lock = {
        held: new Set(),
        queue: new Set(),
        upgrading: undefined,
        token: this.lastToken,
        abandoned: null,
        flights: 0,
      };
      this.locks.set(name, lock);
    }
    return lock;
  }

  private placesOf(client: Client): Map<number, { name: string; place: Place }> {
    return this.places.get(client) ?? new Map();
  }

  private remove({ name, place }: { name: string; place: Place }, client: Client): void {
    const lock = this.lockOf(name);
    lock.held.delete(place);
    lock.queue.delete(place);
    if (lock.upgrading === place) lock.upgrading = undefined;
    this.places.get(client)?.delete(place.id);
  }

  private rob(lock: Lock, thief: Client): void {
    lock.upgrading = undefined;
    for (const { client, id } of lock.held) {
      this.places.get(client)?.delete(id);
      client.robbed(id, `pid ${thief.pid} thread ${thief.threadId} of ${thief.host}`);
    }
    lock.held.clear();
  }

  private grant(lock: Lock, place: Place): Grant {
    lock.held.add(place);
    place.since = Date.now();
    if (place.mode === 'exclusive') this.renewToken(lock);
    place.token = lock.token;
    return grantOf(lock, place);
  }

  private promote(lock: Lock, place: Place): Grant {
    lock.upgrading = undefined;
    place.mode = 'exclusive';
    this.renewToken(lock);
    place.token = lock.token;
    return grantOf(lock, place);
  }

  private renewToken(lock: Lock): void {
    lock.token = ++this.lastToken;
  }

  /** Grants whom the lock is free for by now, in the order of the queue; forgets the lock if there is nothing to be known of it. */
  private grantNext(name: string, lock: Lock): void {
    if (lock.upgrading !== undefined && lock.held.size === 1) {
      const { upgrading } = lock;
      upgrading.client.granted(upgrading.id, this.promote(lock, upgrading));
    }
    for (const place of lock.queue) {
      if (!isFree(lock, place.mode)) break;
      lock.queue.delete(place);
      place.client.granted(place.id, this.grant(lock, place));
    }
    // Flights count for those who wait. Nobody does.
    if (lock.held.size + lock.queue.size === 0 && lock.abandoned === null) this.locks.delete(name);
  }
}

function isFree({ held, upgrading }: Lock, mode: LockMode): boolean {
  if (held.size === 0) return true;
  if (mode === 'exclusive' || upgrading !== undefined) return false;
  for (const place of held) return place.mode === 'shared';
  return true;
}

function grantOf({ abandoned, flights }: Lock, { token }: Place): Grant {
  return { token, abandoned, flights };
}

function abandonedBy({ client, since, token }: Place): Abandoned {
  return { pid: client.pid, threadId: client.threadId, since: new Date(since), token };
}

function infoOf(name: string, { client, mode, since }: Place): LockInfo {
  const { clientId, pid, threadId, host } = client;
  return { name, mode, clientId, pid, threadId, host, since: new Date(since) };
}
