// The lease that a session lives by, the key that is attached to it, and transactions that are carried out once.
//
// etcd ends the lease when it has not heard of it for the time to live. The leader reckons that; a new one begins anew. So
// what the session holds is certain until shortly before that time has passed since a keep-alive was sent that was answered.
//
// A transaction has the condition that the key of the session was last changed at the revision that is known here. When an
// answer was lost, the key is changed; once that is known to be done, the lost transaction was carried out before, or never
// will be. Then it is asked again, and finds by its own keys what it has done: see queue.ts.
import { randomBytes } from 'node:crypto';
import { type Moment, moment, startTimer, type Timer } from '../../common/clock';
import type { LockError } from '../../common/errors';
import { expiredError, forgottenError } from './errors';
import { leaseGrant, leaseKeepAlive, leaseRevoke, txn } from './messages';
import { changedAt, exists, none, only, Reply, type Txn, toRequest } from './txn';
import type { Wire } from './wire';

/** Of the time to live, for how much of it holds are certain. The rest is for clocks that differ, and for what is late. */
const CERTAIN_PART = 0.8;
const BEATS_PER_TTL = 5;
/** How many keep-alives are on their way at a time. */
const BEATS_MAX = 2;

/** How long until something is asked again that the database was too full for, and that has to be done. */
export const NO_SPACE_PAUSE_MS = 500;

const ID_BITS = 63;

export interface LeaseEvents {
  certainFor(ms: number, from: Moment): void;
  /** etcd has carried out a transaction of the session, or refused to. */
  answered(): void;
  /** Once, and not if it was stopped. */
  ended(why: LockError): void;
}

/** What became of a transaction. */
export interface Outcome {
  readonly reply: Reply;
  /** It was asked more than once, and may have been carried out before. */
  readonly repeated: boolean;
}

export class Lease {
  /** Unique for ever. */
  readonly id: bigint;
  private over: LockError | undefined = undefined;
  /** Whether etcd may know of it. */
  private asked = false;
  private key = '';
  private value = '';
  /** The revision at which the key was changed last, as far as it is known. */
  private epoch = 0;
  private renewing: Promise<void> | undefined = undefined;
  private timer: Timer | undefined = undefined;
  private beats = 0;
  private ttlMs = 0;
  private provedAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly wire: Wire,
    private readonly events: LeaseEvents,
  ) {
    this.id = BigInt.asUintN(ID_BITS, randomBytes(8).readBigUInt64BE()) || 1n;
  }

  /**
   * Begins it, with that key, and keeps it alive. Where that fails, another one has to be made.
   *
   * @returns the revision from which on others may have seen the key
   */
  async begin(ttl: number, key: string, value: string): Promise<number> {
    this.key = key;
    this.value = value;
    this.asked = true;
    const sent = moment();
    // Whole seconds; and etcd gives more where its own elections take longer.
    const granted = await this.wire.call('begin a lease', leaseGrant, {
      ttl: Math.ceil(ttl / 1000),
      id: this.id,
    });
    this.ttlMs = granted.ttl * 1000;
    const { revision } = await this.perform('begin a session', {
      as: 'begun',
      when: [none(only(key))],
      does: [{ put: Buffer.from(key), value, lease: this.id }],
    });
    this.epoch = revision;
    this.prove(sent);
    this.beat();
    return revision;
  }

  /**
   * Carries it out, once. Rejects if the session is over, or if etcd refuses it.
   *
   * @param what is to be done, in words
   */
  async transact(what: string, wanted: Txn): Promise<Outcome> {
    let repeated = false;
    for (;;) {
      this.check();
      const { epoch, key } = this;
      let reply: Reply;
      try {
        reply = await this.change(what, {
          as: 'in session',
          when: [changedAt(key, epoch)],
          does: [wanted],
          otherwise: [{ as: 'session', get: only(key) }],
        });
      } catch (error) {
        this.check();
        if (!isUncertain(error)) throw error;
        repeated = true;
        await this.renew(epoch);
        continue;
      }
      if (reply.did('in session')) return { reply, repeated };
      const found = reply.first('session');
      if (found === undefined) this.end(expiredError());
      // In one history it only grows: etcd was restored from a snapshot.
      else if (found.modRevision < epoch) this.end(forgottenError());
      // It was not carried out: another lost transaction has changed the key meanwhile.
      else this.epoch = Math.max(this.epoch, found.modRevision);
    }
  }

  /** As often as it takes; for what changes nothing. */
  async read(what: string, wanted: Txn): Promise<Reply> {
    for (;;) {
      this.check();
      try {
        return await this.perform(what, wanted);
      } catch (error) {
        this.check();
        if (!isUncertain(error)) throw error;
        await this.wire.pause();
      }
    }
  }

  /** Nothing is done any more. */
  stop(why: LockError): void {
    this.over ??= why;
    this.timer?.clear();
  }

  /** Ends it for etcd as well. */
  async revoke(): Promise<void> {
    if (this.asked) await this.wire.call('end a lease', leaseRevoke, { id: this.id });
  }

  private check(): void {
    if (this.over !== undefined) throw this.over;
  }

  private end(why: LockError): void {
    if (this.over !== undefined) return;
    this.stop(why);
    this.events.ended(why);
  }

  private async perform(what: string, wanted: Txn): Promise<Reply> {
    return new Reply(wanted, await this.wire.call(what, txn, toRequest(wanted)));
  }

  /** Unlike a read, and a keep-alive, this is not answered while the disks stand still. */
  private async change(what: string, wanted: Txn): Promise<Reply> {
    const reply = await this.perform(what, wanted);
    this.events.answered();
    return reply;
  }

  /** Changes the key, so that whatever was asked at that revision or before is done, or never will be. */
  private async renew(epoch: number): Promise<void> {
    while (this.epoch === epoch && this.over === undefined) {
      this.renewing ??= this.changeKey().finally(() => {
        this.renewing = undefined;
      });
      await this.renewing;
    }
  }

  private async changeKey(): Promise<void> {
    const { id, key, value } = this;
    await this.wire.pause();
    try {
      const reply = await this.change('go on with a session', {
        as: 'there',
        when: [exists(key)],
        does: [{ put: Buffer.from(key), value, lease: id }],
      });
      if (reply.did('there')) this.epoch = Math.max(this.epoch, reply.revision);
      else this.end(expiredError());
    } catch (error) {
      if (isFull(error)) await new Promise<void>((resolve) => startTimer(resolve, NO_SPACE_PAUSE_MS));
      else if (!isUncertain(error)) this.end(error as LockError);
    }
  }

  private beat(): void {
    this.timer = startTimer(() => {
      this.beat();
      if (this.beats < BEATS_MAX) void this.keepAlive();
    }, this.ttlMs / BEATS_PER_TTL);
  }

  private async keepAlive(): Promise<void> {
    this.beats++;
    while (this.over === undefined) {
      const sent = moment();
      try {
        const { ttl } = await this.wire.callStream('keep a lease alive', leaseKeepAlive, { id: this.id });
        if (ttl > 0) this.prove(sent);
        else this.end(expiredError());
        break;
      } catch (error) {
        if (!isUncertain(error)) break; // there is time to try again, at the next beat
        await this.wire.pause();
      }
    }
    this.beats--;
  }

  private prove(sent: Moment): void {
    if (this.over !== undefined || sent.time < this.provedAt) return;
    this.provedAt = sent.time;
    this.events.certainFor(this.ttlMs * CERTAIN_PART, sent);
  }
}

/** The database is. Keep-alives are answered all the same, and what is only deleted is. */
export function isFull(error: unknown): boolean {
  return (error as LockError).code === 'ERR_LOCK_NO_SPACE';
}

export function isUncertain(error: unknown): boolean {
  return (error as LockError).code === 'ERR_LOCK_UNAVAILABLE';
}
