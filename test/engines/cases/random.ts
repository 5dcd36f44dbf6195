// Several parties do what comes to their mind, step by step; a model of the lock says after each step who holds, who waits,
// in which order, and who was just granted what. Seeded: the same seed is the same story.
import { setImmediate as turn } from 'node:timers/promises';
import type { Grant, Pending } from '../../support/party';
import { until } from '../../support/until';
import type { Awaitable, ClassName, LockMode, SharedLock, Traits } from '../infrastructure';
import { type Cases, errorOf, type Other, type Stage } from '../stage';

const NAMES = ['a', 'b'];
const PARTIES = 4;
/** Longer than any engine takes to tell of a grant. */
const GRANT_MS_MAX = 10_000;
const CLASSES: ClassName[] = ['SharedLock', 'SharedRLock', 'Lock', 'RLock'];

/** mulberry32: small, and good enough for a story. */
function dice(seed: number) {
  let state = seed;
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return {
    one: <T>(of: readonly T[]): T | undefined => of[Math.floor(random() * of.length)],
    /** With such a probability. */
    says: (probability: number) => random() < probability,
    random,
  };
}

/** One hold or wait. */
interface Place {
  readonly lock: Model;
  readonly party: Other;
  /** Of its guard. */
  readonly key: string;
  mode: LockMode;
  /** The hold of a try that asks nobody: it belongs to the thread, and another try nests in it. */
  ofThread: boolean;
  /** What will be told when it, or its upgrade, is granted. */
  pending: Pending<Grant> | undefined;
  sawMark: boolean;
}

/** One lock as it has to be. */
class Model {
  held: Place[] = [];
  queue: Place[] = [];
  upgrading: Place | undefined;
  /** The greatest token that was seen. */
  token = 0n;
  /** The token of the exclusive holder that died. */
  mark: string | null = null;

  constructor(readonly name: string) {}

  isFree(mode: LockMode): boolean {
    if (this.held.length === 0) return true;
    return (
      mode === 'shared' && this.upgrading === undefined && this.held.every((one) => one.mode === 'shared')
    );
  }

  /** Who is granted now, in this order. */
  grantNext(): Place[] {
    const granted: Place[] = [];
    const { upgrading } = this;
    if (upgrading !== undefined && this.held.length === 1) {
      this.upgrading = undefined;
      upgrading.mode = 'exclusive';
      granted.push(upgrading);
    }
    while (this.queue.length > 0 && this.isFree(this.queue[0]!.mode)) {
      const next = this.queue.shift()!;
      this.held.push(next);
      granted.push(next);
    }
    return granted;
  }

  remove(place: Place): void {
    this.held = this.held.filter((one) => one !== place);
    this.queue = this.queue.filter((one) => one !== place);
    if (this.upgrading === place) this.upgrading = undefined;
  }

  /** What a holder was told fits. */
  check({ token, abandoned, mode }: Grant, place: Place): void {
    expect(mode).toBe(place.mode);
    const found = BigInt(token);
    if (mode === 'exclusive') expect(found > this.token).toBe(true);
    else expect(found >= this.token).toBe(true);
    this.token = found;
    expect(abandoned?.token ?? null).toBe(this.mark);
    place.sawMark = this.mark !== null;
  }
}

/** Nobody is passed over who was told less than so long ago that it may try. */
const UNRESPONSIVE_MS = 50;

/** A waiter did not react, and another one was granted. */
class PassedOver extends Error {}

class Story {
  private readonly locks = NAMES.map((name) => new Model(name));
  private readonly dice;
  private parties: Other[] = [];
  private keys = 0;
  private stepBegan = 0;
  /** What happened, for whoever has to find out why. */
  readonly log: string[] = [];

  constructor(
    private readonly stage: Stage,
    private readonly traits: Traits,
    seed: number,
  ) {
    this.dice = dice(seed);
  }

  async run(steps: number): Promise<void> {
    for (let n = 0; n < PARTIES; n++) this.parties.push(await this.stage.other());
    try {
      for (let n = 0; n < steps; n++) {
        this.stepBegan = performance.now();
        await this.step();
        await this.checkState();
      }
      await this.end();
    } catch (error) {
      if (!(error instanceof PassedOver)) throw error;
      // From here on it depends on when that one reacts who is granted what.
      console.log(
        `cut short after ${this.log.length} steps: on this busy machine a waiter did not react in time`,
      );
    }
  }

  private async step(): Promise<void> {
    const { dice } = this;
    const lock = dice.one(this.locks)!;
    const party = dice.one(this.parties)!;
    const mode: LockMode = dice.says(0.5) ? 'shared' : 'exclusive';
    const holder = dice.one(lock.held.filter((one) => one !== lock.upgrading));
    const waiter = dice.one([...lock.queue, ...(lock.upgrading ? [lock.upgrading] : [])]);
    const choice = dice.random();
    if (choice < 0.02) await this.kill(party);
    else if (choice < 0.1 && waiter) await this.abort(waiter);
    else if (choice < 0.2) await this.try(lock, party, mode);
    else if (choice < 0.25) await this.tryOnce(lock, party, mode);
    else if (choice < 0.3 && holder?.mode === 'exclusive') await this.downgrade(holder);
    else if (choice < 0.4 && holder?.mode === 'shared' && this.traits.upgrades) await this.upgrade(holder);
    else if (choice < 0.65 && holder) await this.release(holder);
    else await this.acquire(lock, party, mode);
  }

  private place(lock: Model, party: Other, mode: LockMode): Place {
    return {
      lock,
      party,
      key: `guard ${++this.keys}`,
      mode,
      ofThread: false,
      pending: undefined,
      sawMark: false,
    };
  }

  private async acquire(lock: Model, party: Other, wanted: LockMode): Promise<void> {
    const className = this.dice.one(CLASSES)!;
    const mode = className.startsWith('Shared') ? wanted : 'exclusive';
    const place = this.place(lock, party, mode);
    this.tell('acquires', place);
    const args = { name: lock.name, as: place.key, class: className };
    if (lock.queue.length === 0 && lock.isFree(mode)) {
      lock.held.push(place);
      lock.check(await party.acquire(mode, args), place);
      return;
    }
    lock.queue.push(place);
    place.pending = await party.queue(mode, args);
  }

  private async try(lock: Model, party: Other, mode: LockMode): Promise<void> {
    if (lock.held.some((one) => one.ofThread && one.party === party)) return;
    const place = this.place(lock, party, mode);
    place.ofThread = !this.traits.remote;
    this.tell('tries', place);
    const grant = await party.try(mode, { name: lock.name, as: place.key });
    const isFree = lock.queue.length === 0 && lock.isFree(mode);
    expect(grant !== null).toBe(isFree);
    if (grant === null) return;
    lock.held.push(place);
    lock.check(grant, place);
  }

  private async tryOnce(lock: Model, party: Other, mode: LockMode): Promise<void> {
    const place = this.place(lock, party, mode);
    this.tell('tries once', place);
    const acquire = () => party.acquire(mode, { name: lock.name, as: place.key, timeout: 0 });
    if (lock.queue.length === 0 && lock.isFree(mode)) {
      lock.held.push(place);
      lock.check(await acquire(), place);
    } else {
      expect(await errorOf(acquire)).toMatchObject({ code: 'ERR_LOCK_TIMEOUT' });
    }
  }

  private async release(place: Place): Promise<void> {
    this.tell('releases', place);
    const { lock } = place;
    await place.party.release(place.key);
    if (place.mode === 'exclusive' && place.sawMark) lock.mark = null;
    lock.remove(place);
    await this.granted(lock);
  }

  private async downgrade(place: Place): Promise<void> {
    this.tell('downgrades', place);
    await place.party.downgrade(place.key);
    place.mode = 'shared';
    place.lock.mark = null;
    await this.granted(place.lock);
  }

  private async upgrade(place: Place): Promise<void> {
    this.tell('upgrades', place);
    const { lock, party } = place;
    const upgrade = () => party.upgrade({ guard: place.key });
    if (lock.upgrading !== undefined) {
      expect(await errorOf(upgrade)).toMatchObject({ code: 'ERR_LOCK_UPGRADE' });
    } else if (lock.held.length > 1) {
      lock.upgrading = place;
      place.pending = await this.stage.queueUpgrade(upgrade, lock.name);
      // Where somebody exclusive waits, newcomers are barred in any case. What is asked next is answered after the upgrade.
      await party.acquire('exclusive', { name: `beside ${place.key}`, as: 'beside' });
      await party.release('beside');
    } else {
      place.mode = 'exclusive';
      lock.check(await upgrade(), place);
    }
  }

  private async abort(place: Place): Promise<void> {
    this.tell('gives up', place);
    const { lock, party } = place;
    await party.abort('changed its mind', place.key);
    expect(await errorOf(() => place.pending!.promise)).toMatchObject({ message: 'changed its mind' });
    place.pending = undefined;
    if (lock.upgrading === place) lock.upgrading = undefined;
    else lock.remove(place);
    await this.granted(lock);
  }

  private async kill(party: Other): Promise<void> {
    this.log.push(`party ${this.parties.indexOf(party)} is killed`);
    await party.kill();
    for (const lock of this.locks) {
      for (const place of [...lock.held, ...lock.queue].filter((one) => one.party === party)) {
        if (place.mode === 'exclusive' && lock.held.includes(place)) lock.mark = String(lock.token);
        lock.remove(place);
      }
      await this.granted(lock);
    }
    this.parties[this.parties.indexOf(party)] = await this.stage.other();
  }

  /** Those who have the lock now are told so, and nobody else. */
  private async granted(lock: Model): Promise<void> {
    const isPassedOver = () => this.traits.passesOver && lock.queue.some(({ pending }) => pending!.settled);
    for (const place of lock.grantNext()) {
      const pending = place.pending!;
      await until(() => pending.settled || isPassedOver(), { within: this.traits.deathMs + GRANT_MS_MAX });
      if (!pending.settled) {
        expect(performance.now() - this.stepBegan).toBeGreaterThanOrEqual(UNRESPONSIVE_MS);
        throw new PassedOver();
      }
      place.pending = undefined;
      lock.check(await pending.promise, place);
    }
  }

  private async checkState(): Promise<void> {
    const places = (of: 'held' | 'queue') =>
      this.locks.flatMap((lock) => lock[of].map(({ party, mode }) => [party, mode] as const));
    await this.stage.untilDeadAreGone(places('held').length + places('queue').length);
    await this.stage.expectState(places('held'), places('queue'), NAMES);
    for (const lock of this.locks) {
      for (const { pending } of lock.queue) expect(pending!.settled).toBe(false);
      if (lock.upgrading) expect(lock.upgrading.pending!.settled).toBe(false);
    }
  }

  /** Everybody goes home, in a story that has an end: whoever waits is granted. */
  private async end(): Promise<void> {
    for (const lock of this.locks) {
      while (lock.held.length > 0) {
        this.stepBegan = performance.now();
        await this.release(lock.held.find((one) => one !== lock.upgrading)!);
        await this.checkState();
      }
      expect(lock.queue).toEqual([]);
    }
  }

  private tell(what: string, { party, lock, key, mode }: Place): void {
    this.log.push(`party ${this.parties.indexOf(party)} ${what} ${lock.name} (${mode}), ${key}`);
  }
}

/** Who is certain to hold: from when it was told of the grant until it begins to release. */
class Oracle {
  private readers = 0;
  private writers = 0;
  /** The greatest of the exclusive holders. */
  private token = 0n;
  grants = 0;

  enter(mode: LockMode, token: bigint | string): void {
    this.grants++;
    const found = BigInt(token);
    expect(this.writers).toBe(0);
    if (mode === 'exclusive') {
      expect(this.readers).toBe(0);
      expect(found > this.token).toBe(true);
      this.token = found;
      this.writers++;
    } else {
      expect(found >= this.token).toBe(true);
      this.readers++;
    }
  }

  leave(mode: LockMode): void {
    if (mode === 'exclusive') this.writers--;
    else this.readers--;
  }
}

/** The last one where the connection is interrupted: its time may be up before there is another one. */
const EXPECTED = ['ERR_LOCK_TIMEOUT', 'ERR_LOCK_LOST', 'ERR_LOCK_UPGRADE', 'ERR_LOCK_UNAVAILABLE'];

/** What may come of a call at any time; anything else is a fault. */
async function maybe<T>(call: () => Awaitable<T>): Promise<T | undefined> {
  try {
    return await call();
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    if (message !== 'changed its mind' && !EXPECTED.includes(code)) throw error;
    return undefined;
  }
}

class Storm {
  private readonly dice;
  readonly oracle = new Oracle();

  constructor(
    private readonly stage: Stage,
    private readonly traits: Traits,
    seed: number,
  ) {
    this.dice = dice(seed);
  }

  async run(rounds: number): Promise<void> {
    const others = await Promise.all([1, 2, 3].map(() => this.stage.other()));
    let over = false;
    let done = 0;
    const interruptions = (async () => {
      for (let next = 10; this.traits.breaks && !over; await turn()) {
        if (done < next) continue;
        next = done + 10;
        await this.stage.interrupt(new Error('an interruption of the storm'));
      }
    })();
    const repeat = async (round: () => Promise<void>) => {
      for (let n = 0; n < rounds; n++, done++) await round();
    };
    try {
      await Promise.all([
        ...CLASSES.map((className) => repeat(() => this.mine(this.stage.make(className)))),
        ...others.map((other) => repeat(() => this.theirs(other))),
      ]);
    } finally {
      over = true;
      await interruptions;
    }
  }

  /** Some turns of the microtask queue, or of the event loop. */
  private async pause(): Promise<void> {
    const count = Math.floor(this.dice.random() * 12);
    if (count > 8) await turn();
    else for (let n = 0; n < count; n++) await null;
  }

  /** A round of this process. */
  private async mine(lock: SharedLock): Promise<void> {
    const { dice, oracle, traits } = this;
    const exclusive = dice.says(0.5);
    const controller = new AbortController();
    const options = {
      exclusive,
      ...(dice.says(0.2) ? { timeout: Math.floor(dice.random() * 3) } : {}),
      ...(dice.says(0.5) ? { signal: controller.signal } : {}),
    };
    const tries = traits.remote && dice.says(0.2);
    const taken = maybe(() => (tries ? lock.tryAcquire({ exclusive }) : lock.acquire(options)));
    if (dice.says(0.3)) {
      await this.pause();
      controller.abort(new Error('changed its mind'));
    }
    const guard = await taken;
    if (!guard) return;
    let inside = true;
    let { mode } = guard;
    const leave = () => {
      if (inside) oracle.leave(mode);
      inside = false;
    };
    if (traits.tellsLoss) {
      guard.lost.addEventListener('abort', leave);
      if (guard.lost.aborted) inside = false;
    }
    if (inside) oracle.enter(mode, guard.token);
    await this.pause();
    if (inside && mode === 'exclusive' && dice.says(0.2)) {
      leave();
      await maybe(() => guard.downgrade());
      if (guard.mode === 'shared' && !(traits.tellsLoss && guard.lost.aborted)) {
        mode = 'shared';
        oracle.enter(mode, guard.token);
        inside = true;
      }
    } else if (inside && mode === 'shared' && traits.upgrades && dice.says(0.3)) {
      await maybe<unknown>(() => (dice.says(0.5) ? guard.tryUpgrade() : guard.upgrade({ timeout: 5 })));
      if (guard.mode === 'exclusive' && inside) {
        leave();
        mode = 'exclusive';
        oracle.enter(mode, guard.token);
        inside = true;
      }
    }
    await this.pause();
    leave();
    await maybe(() => guard.release());
    expect(guard.released).toBe(true);
  }

  /** A round of another party. */
  private async theirs(other: Other): Promise<void> {
    const { dice, oracle } = this;
    const mode: LockMode = dice.says(0.5) ? 'shared' : 'exclusive';
    const taken = maybe(() => other.acquire(mode, dice.says(0.2) ? { timeout: 1 } : {}));
    if (dice.says(0.3)) {
      await this.pause();
      await other.abort('changed its mind');
    }
    const grant = await taken;
    if (grant === undefined) return;
    oracle.enter(mode, grant.token);
    await this.pause();
    oracle.leave(mode);
    await other.release();
  }
}

export const random: Cases = (property, traits) => {
  const stories = Number(process.env.PROCLOCK_STORIES ?? (traits.remote ? 4 : 2));
  for (let seed = 1; seed <= stories; seed++) {
    property(`is as the model says, after each step of story ${seed}`, async (stage) => {
      const story = new Story(stage, traits, seed);
      try {
        await story.run(150);
      } catch (error) {
        const seen = JSON.stringify(await stage.query());
        (error as Error).message +=
          `\n\nThe story so far:\n${story.log.slice(-40).join('\n')}\n\nSeen now: ${seen}`;
        throw error;
      }
    });
  }

  for (const seed of [1, 2]) {
    property(
      `no two that exclude each other hold at the same time, and tokens grow, in storm ${seed}`,
      async (stage) => {
        const storm = new Storm(stage, traits, seed);
        await storm.run(60);
        expect(storm.oracle.grants).toBeGreaterThan(60);
      },
    );
  }
};
