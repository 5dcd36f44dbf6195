// One hold or wait of a session, from the question to the end. What is asked for it is done one after another, so a
// withdrawal and a grant never cross: each grant is made here, and is made before, or not at all.
import { startSoon } from '../../common/clock';
import type { LockMode } from '../../common/types';
import type { Answer, Grant, Leaving, Slot } from '../../remote/engine';
import { flightsIn, grantIn } from './answers';
import { type LockKeys, lastPart, numberOf, type SpaceKeys, sessionOf, slotOf } from './keys';
import { isFull, NO_SPACE_PAUSE_MS } from './lease';
import type { KeyValue } from './messages';
import {
  acquire,
  downgrade,
  type Entry,
  release,
  robberyOf,
  standBack,
  takeBack,
  takeTurn,
  takeTurnToUpgrade,
  undoUpgrade,
  upgrade,
  type Victim,
} from './queue';
import { takeByForce } from './theft';
import type { Reply, Txn } from './txn';
import { Waking, type WakingHost } from './waking';

/** What a place needs of its session. */
export interface Host extends WakingHost {
  readonly clientId: string;
  readonly keys: SpaceKeys;
  /** The session has ended, or is being closed. */
  readonly over: boolean;
  /** As others are to see it. */
  readonly thief: string;
  describe(name: string, mode: LockMode): string;
  granted(place: Place, grant: Grant): void;
  /** Does it when all that was asked before to get into the same lock has been answered. */
  inOrder<T>(name: string, work: () => Promise<T>): Promise<T>;
  /** Somebody of this session was robbed. */
  robbed(id: number, thief: string): void;
  /** It is over. @returns false if it was before, as for one that was robbed */
  remove(place: Place): boolean;
  /** Looks whether word was left that somebody was robbed, and tells. */
  readMail(): Promise<void>;
  /** Its keys are not what they have to be. */
  forgotten(): void;
}

/** `new`: nothing was asked yet. `asked`: it is not known what has come of it. `waits`: in the queue. `upgrades`: held, and waits for the others to leave. */
type State = 'new' | 'asked' | 'waits' | 'held' | 'upgrades' | 'over';

export class Place implements Entry {
  readonly id: number;
  readonly keys: LockKeys;
  readonly slot: string;
  readonly lease: bigint;
  readonly mailbox: string;
  mode: LockMode;
  position = 0;
  heldAt = 0;
  /** Whether its waiter has heard that it was granted. */
  isHeard = false;
  private readonly name: string;
  private state: State = 'new';
  /** Of the wait or upgrade that was asked for last, if it was granted. */
  private grant: Grant | undefined = undefined;
  /** It may bar the queue. */
  private isThief = false;
  /** Its waiter has given up. */
  private unwanted = false;
  private readonly waking: Waking;
  private turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly host: Host,
    { id, name, mode }: Slot,
  ) {
    this.id = id;
    this.name = name;
    this.mode = mode;
    this.keys = host.keys.lock(name);
    this.slot = slotOf(host.clientId, id);
    this.mailbox = host.keys.robbed(this.slot);
    this.lease = host.lease.id;
    this.waking = new Waking(host, () => this.wake());
  }

  describe(mode: LockMode): string {
    return this.host.describe(this.name, mode);
  }

  // ---- the verbs

  acquire(how: 'wait' | 'try' | 'steal'): Promise<Answer> {
    return this.inOrder(async () => {
      // It was taken back before it was asked.
      if (this.state === 'over') return { state: 'refused' };
      this.state = 'asked';
      if (how === 'steal') return this.steal();
      const reply = await this.transact(acquire(this, how));
      if (reply.did('free')) return this.enter(reply.revision, reply);
      if (reply.did('new')) {
        if (how === 'try') return this.refuse();
        this.position = reply.revision;
        return this.wait(reply);
      }
      if (this.wasGranted(reply)) return this.enterAgain(reply);
      if (this.wasRobbed(reply)) return this.enterRobbed();
      this.position = reply.first('own place')?.createRevision ?? 0;
      this.state = 'waits';
      return (await this.tryTurn()) ?? { state: 'queued', flights: flightsIn(reply) };
    });
  }

  upgrade(how: 'wait' | 'try'): Promise<Answer> {
    return this.inOrder(async () => {
      if (this.state !== 'held') return { state: 'refused' };
      this.grant = undefined;
      const reply = await this.transact(upgrade(this, how)).catch((error) => this.standBackAfter(error));
      if (reply.did('free') || reply.first('own mark') !== undefined) return this.becomeExclusive(reply);
      if (reply.did('barred') ? how === 'wait' : this.isAhead(reply)) {
        this.state = 'upgrades';
        return this.wait(reply);
      }
      if (!reply.did('barred') && !this.wasGranted(reply)) await this.hearWhyItIsLost();
      return { state: 'refused' };
    });
  }

  async withdraw(): Promise<Grant | undefined> {
    if (this.state === 'new') {
      this.end();
      this.host.remove(this);
      return undefined;
    }
    this.unwanted = true;
    return this.inTurn(async () => {
      const { state } = this;
      this.unwanted = false;
      this.waking.off();
      if (state === 'held') return this.grant;
      if (state === 'upgrades') {
        const reply = await this.transact(standBack(this));
        if (this.state !== state) return undefined;
        this.state = 'held';
        // It was granted, by a question that was refused all the same.
        if (reply.first('own mark') !== undefined) this.becomeExclusive(reply);
        return this.grant;
      }
      if (state === 'waits' || state === 'asked') {
        await this.transact(takeBack(this));
        if (this.isThief) await this.transact(standBack(this));
        this.state = 'over';
        this.host.remove(this);
      }
      return undefined;
    });
  }

  release({ repaired, flight }: Leaving): Promise<boolean> {
    return this.inTurn(async () => {
      this.waking.off();
      if (this.state !== 'held' && this.state !== 'upgrades') return false;
      const { lease } = this.host;
      const { reply, repeated } = await lease.transact('release a lock', release(this, repaired, flight));
      this.state = 'over';
      if (!reply.did('held')) {
        await this.host.readMail();
        return this.host.remove(this) && repeated;
      }
      this.host.remove(this);
      return true;
    });
  }

  downgrade(repaired: boolean): Promise<boolean> {
    return this.inTurn(async () => {
      if (this.state !== 'held') return false;
      const reply = await this.transact(downgrade(this, repaired));
      this.mode = 'shared';
      this.grant = undefined;
      if (reply.did('held')) return true;
      await this.host.readMail();
      this.end();
      this.host.remove(this);
      return false;
    });
  }

  /** What gives it back when its session is closed; nothing if there is nothing to be given back. */
  leaving(): Promise<Txn | undefined> {
    if (this.state === 'new') this.end();
    this.unwanted = true;
    return this.inTurn(async () => {
      const { state } = this;
      this.end();
      if (state === 'waits' || state === 'asked') return takeBack(this);
      if (state === 'held' || state === 'upgrades') return release(this, false, false);
      return undefined;
    });
  }

  /** Resolves once whoever asked for something has heard of the answer. */
  settled(): Promise<void> {
    return this.inTurn(() => new Promise((resolve) => startSoon(resolve, false)));
  }

  /** Nothing comes of it any more. */
  end(): void {
    this.state = 'over';
    this.waking.off();
  }

  /** An upgrade was refused, and may have been done all the same. Where this is refused as well, the release sees to it. */
  private async standBackAfter(refusal: unknown): Promise<never> {
    await this.transact(undoUpgrade(this)).catch(() => {});
    throw refusal;
  }

  // ---- to wait

  private wait(reply: Reply): Answer {
    if (this.state === 'asked') this.state = 'waits';
    this.watchWhomItWaitsFor(reply);
    return { state: 'queued', flights: flightsIn(reply) };
  }

  private watchWhomItWaitsFor(reply: Reply): void {
    this.waking.whenGone(this.blockerIn(reply));
  }

  private blockerIn(reply: Reply): KeyValue | undefined {
    const others = reply.all('others').find(({ key }) => lastPart(key) !== this.slot);
    if (this.state === 'upgrades') return others;
    return reply.first('before') ?? reply.first('ahead') ?? others;
  }

  private wake(): void {
    void this.inTurn(async () => {
      try {
        const answer = await this.tryTurn();
        if (answer?.state === 'granted') this.host.granted(this, answer.grant);
      } catch (error) {
        this.turnFailed(error);
      }
    });
  }

  /** A full database takes nothing away from those who have something: the place is kept, and the session goes on. */
  private turnFailed(error: unknown): void {
    if (isFull(error) && !this.host.over) this.waking.after(NO_SPACE_PAUSE_MS);
    else this.host.failed(error);
  }

  /** Takes the lock, if it is its turn, and watches somebody else if not. */
  private async tryTurn(): Promise<Answer | undefined> {
    if (this.unwanted || (this.state !== 'waits' && this.state !== 'upgrades')) return undefined;
    if (this.state === 'upgrades') return this.tryTurnToUpgrade();
    const reply = await this.transact(takeTurn(this));
    if (reply.did('free')) return this.enter(reply.revision, reply);
    if (this.wasGranted(reply)) return this.enterAgain(reply);
    if (this.wasRobbed(reply)) return this.enterRobbed();
    if (reply.first('own place') === undefined) this.host.forgotten();
    else this.watchWhomItWaitsFor(reply);
    return undefined;
  }

  private async tryTurnToUpgrade(): Promise<Answer | undefined> {
    const reply = await this.transact(takeTurnToUpgrade(this));
    if (reply.did('free') || reply.first('own mark') !== undefined) return this.becomeExclusive(reply);
    if (this.isAhead(reply)) {
      this.watchWhomItWaitsFor(reply);
      return undefined;
    }
    await this.hearWhyItIsLost();
    return undefined;
  }

  private async hearWhyItIsLost(): Promise<void> {
    await this.host.readMail();
    if (this.state !== 'over') this.host.forgotten();
  }

  // ---- to have

  private enter(revision: number, reply: Reply): Answer {
    if (this.position === 0) this.position = revision;
    this.heldAt = revision;
    return this.granted(reply);
  }

  private enterAgain(reply: Reply): Answer {
    this.position = reply.first('own place')?.createRevision ?? 0;
    return this.enter(reply.first('own hold')?.createRevision ?? 0, reply);
  }

  /**
   * It was granted by a transaction whose answer was lost, and robbed since. The mail says so once this is told. No store
   * takes the token, and nobody has seen the one that it had.
   */
  private enterRobbed(): Answer {
    this.state = 'held';
    this.grant = { token: 0n, abandoned: null, flights: 0 };
    this.settled()
      .then(() => this.host.readMail())
      .catch(() => {}); // the session is over
    return { state: 'granted', grant: this.grant };
  }

  private becomeExclusive(reply: Reply): Answer {
    this.mode = 'exclusive';
    return this.granted(reply);
  }

  private granted(reply: Reply): Answer {
    this.state = 'held';
    startSoon(() => {
      this.isHeard = true;
    }, false);
    this.grant = grantIn(reply, this.slot);
    return { state: 'granted', grant: this.grant };
  }

  private refuse(): Answer {
    this.state = 'over';
    return { state: 'refused' };
  }

  private wasGranted(reply: Reply): boolean {
    return reply.first('own hold') !== undefined;
  }

  private wasRobbed(reply: Reply): boolean {
    return reply.first('own mail') !== undefined;
  }

  private isAhead(reply: Reply): boolean {
    return reply.first('ahead')?.value.toString() === this.slot;
  }

  private async steal(): Promise<Answer> {
    const { keys, lease, thief: name } = this.host;
    this.isThief = true;
    const reply = await takeByForce({
      entry: this,
      name,
      lease,
      keys,
      isWanted: () => !this.unwanted,
      transact: (txn) => this.transact(txn),
      robbed: (victims, answer) => this.tellOwn(victims, answer),
    });
    if (reply === undefined) return this.refuse();
    if (reply.did('free')) return this.enter(reply.revision, reply);
    return this.wasGranted(reply) ? this.enterAgain(reply) : this.enterRobbed();
  }

  /** Those of this session hear of it before the thief does. */
  private tellOwn(victims: readonly Victim[], reply: Reply): void {
    const { clientId, thief } = this.host;
    for (const { slot } of victims)
      if (sessionOf(slot) === clientId && reply.did(robberyOf(slot))) this.host.robbed(numberOf(slot), thief);
  }

  private async transact(txn: Txn): Promise<Reply> {
    return (await this.host.lease.transact(`change the keys of a lock`, txn)).reply;
  }

  private inOrder<T>(work: () => Promise<T>): Promise<T> {
    return this.inTurn(() => this.host.inOrder(this.name, work));
  }

  private inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.turn.then(work);
    this.turn = done.catch(() => {});
    return done;
  }
}
