// One session: a connection that has an advisory lock for as long as it lives, by which the others tell that it does.
//
// The server ends a session that it has not heard of for `ttl`, so what the session holds is certain until shortly before
// that time has passed since a question was sent which was answered. A heartbeat is asked where nothing else is. Whoever waits
// looks for sessions that are dead, several times a second.
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { threadId } from 'node:worker_threads';
import { type Moment, startSoon, startTimer, type Timer } from '../../common/clock';
import { LockError } from '../../common/errors';
import type { LockSnapshot } from '../../common/types';
import type { Answer, Grant, Leaving, Mark, Session, SessionEvents, Slot } from '../../remote/engine';
import {
  type Asked,
  abandonedOf,
  type GrantText,
  grantOf,
  type InfoText,
  infoOf,
  type MarkText,
  type Message,
  messageIn,
  nameIn,
  type Told,
} from './answers';
import type { Query } from './client';
import type { Settings } from './config';
import { forgottenError, missingRightsError, toLockError, transactionPoolerError } from './errors';
import { checkSchema } from './install';
import { Names, quoted } from './names';
import { type Place, Places } from './place';
import { checkServer } from './server';
import { Wire, type WireEvents } from './wire';

/** Of a session's time, how much its holds are certain for. The rest is for clocks that differ, and for what is late. */
const CERTAIN_PART = 0.8;
const BEATS_PER_TTL = 3;
const PROOFS_PER_TTL_MAX = 20;
/** How often whoever waits looks for the dead. The server lets somebody look every 150 ms at most. */
const LOOK_MS = 200;

export class PostgresSession implements Session, WireEvents {
  readonly clientId: string;
  /** Of the advisory lock: 63 random bits. */
  private readonly number: bigint;
  private wire!: Wire;
  private readonly names: Names;
  /** What calls each verb. */
  private readonly texts = new Map<string, string>();
  private readonly places = new Places();
  private waits = 0;
  private beatTimer: Timer | undefined = undefined;
  private lookTimer: Timer | undefined = undefined;
  /** Whether the server ends the session when it does not hear of it. */
  private leased = false;
  /** When the question was sent whose answer was taken as a proof last. */
  private provedAt = Number.NEGATIVE_INFINITY;
  private opened = false;
  private over = false;
  /** Why it has ended, if it has ended by itself. */
  private why: LockError | undefined = undefined;
  /**
   * The condition that keeps a verb from being carried out over another connection than ours; empty without a pooler. The
   * functions are named with their schema, because another connection would not find them.
   */
  private condition = '';

  private constructor(
    private readonly settings: Settings,
    private readonly events: SessionEvents,
  ) {
    const random = randomBytes(24);
    this.number = random.readBigUInt64BE() >> 1n;
    this.names = new Names(settings.namespace);
    this.clientId = random.toString('hex', 8);
  }

  static async open(settings: Settings, events: SessionEvents): Promise<PostgresSession> {
    const session = new PostgresSession(settings, events);
    const wire = await Wire.open(settings.connection, settings.schema, session);
    session.wire = wire;
    try {
      const processId = await checkServer(wire, settings);
      if (settings.pooler === 'session') session.condition = ` where pg_backend_pid() = ${processId}`;
      await checkSchema(wire, settings);
      await session.enter();
    } catch (error) {
      const why = toLockError('open a session', error, settings.schema);
      wire.drop(why);
      throw why;
    }
    return session;
  }

  // ---- what is asked of it

  async acquire(slot: Slot, how: 'wait' | 'try' | 'steal'): Promise<Answer> {
    const { bytes, key } = this.names.of(slot.name);
    const place = this.places.add(slot, key);
    const { number } = place;
    const exclusively = slot.mode === 'exclusive';
    const asked = this.call<Asked>('acquire', number, key, this.settings.namespace, bytes, exclusively, how);
    const answer = await this.answerOf(place, asked);
    if (answer.state === 'refused') this.places.delete(place);
    return answer;
  }

  async upgrade(slot: Slot, how: 'wait' | 'try'): Promise<Answer> {
    const place = this.places.of(slot);
    if (place === undefined) return { state: 'refused' };
    this.tellEarly(place);
    place.state = 'asked';
    place.tokenBefore = place.token;
    return this.answerOf(place, this.call<Asked>('upgrade', place.number, place.key, how));
  }

  async withdraw(slot: Slot): Promise<Grant | undefined> {
    const place = this.places.of(slot);
    if (place === undefined) return undefined;
    const withdrawn = this.call<Told & { grant?: GrantText }>('withdraw', place.number, place.key);
    const { grant: text } = await this.keepEarly(place, withdrawn);
    const wasHeld = place.token >= 0n;
    this.settle(place);
    if (text === undefined) {
      if (!wasHeld) this.places.delete(place);
      return undefined;
    }
    const grant = grantOf(text);
    // The upgrade was refused meanwhile: this is the grant of the shared hold.
    if (grant.token <= place.tokenBefore) return undefined;
    place.token = grant.token;
    return grant;
  }

  async release(slot: Slot, { repaired, flight }: Leaving): Promise<boolean> {
    return this.leavePlace(slot, ({ number, key }) => this.call('release', number, key, repaired, flight));
  }

  async downgrade(slot: Slot, repaired: boolean): Promise<boolean> {
    const place = this.places.of(slot);
    if (place === undefined) return false;
    this.tellEarly(place);
    const { number, key } = place;
    const { known } = await this.call<Told & { known: boolean }>('downgrade', number, key, repaired);
    if (!known) this.places.delete(place);
    return known;
  }

  async query(name?: string): Promise<LockSnapshot> {
    const key = name === undefined ? null : this.names.of(name).key;
    const { slots } = await this.call<Told & { slots: InfoText[] }>('query', this.settings.namespace, key);
    const infos = (held: boolean) => slots.filter((slot) => slot.held === held).map(infoOf);
    return { held: infos(true), pending: infos(false) };
  }

  async marks(): Promise<Mark[]> {
    const { marks } = await this.call<Told & { marks: MarkText[] }>('marks', this.settings.namespace);
    return marks.map(({ name, abandoned }) => ({ name: nameIn(name), abandoned: abandonedOf(abandoned) }));
  }

  async close(): Promise<void> {
    this.stop();
    while ((await this.call<Told & { more: boolean }>('leave')).more);
    await this.wire.close();
  }

  drop(): void {
    this.stop();
    this.wire.drop(new LockError('ERR_LOCK_UNAVAILABLE', 'the session was given up'));
  }

  // ---- what the connection tells

  notified(payload: string): void {
    const message = messageIn(payload);
    if (message !== undefined) this.tell(message);
  }

  proved(sent: Moment): void {
    if (!this.leased) return;
    // Also while all is given back, for which whoever closes the session waits as long as there are answers.
    this.events.answered();
    if (this.over) return;
    const { ttl } = this.settings;
    // To say this for each answer would cost more than it is worth.
    if (sent.time < this.provedAt + ttl / PROOFS_PER_TTL_MAX) return;
    this.provedAt = sent.time;
    this.events.certainFor(ttl * CERTAIN_PART, sent);
  }

  ended(why: LockError): void {
    if (this.over) return;
    this.why = why;
    this.stop();
    if (this.opened) this.events.ended(why);
  }

  // ----

  private async enter(): Promise<void> {
    this.leased = true;
    const { missing } = await this.call<Told & { missing?: string }>(
      'enter',
      this.clientId,
      process.pid,
      threadId,
      hostname(),
    );
    if (missing !== undefined) throw missingRightsError(this.settings.schema, missing);
    // The end of the connection may have come in one piece with the answer.
    if (this.why !== undefined) throw this.why;
    this.opened = true;
    this.beat();
  }

  /** Calls the function of that name, for this session. */
  private async call<T extends Told>(verb: string, ...given: NonNullable<Query['values']>): Promise<T> {
    const values = [this.number, ...given];
    const text = this.textOf(verb, values.length);
    // Behind a pooler a connection may have the prepared statements of another program.
    const query = this.condition === '' ? { name: verb, text, values } : { text, values };
    const [row] = await this.wire.ask(`${verb} in the schema "${this.settings.schema}"`, query);
    const json = row?.[0];
    if (typeof json !== 'string') {
      const why = transactionPoolerError();
      this.giveUp(why);
      throw why;
    }
    const answer = JSON.parse(json) as T;
    for (const message of answer.told) this.tell(message);
    return answer;
  }

  private textOf(verb: string, count: number): string {
    const known = this.texts.get(verb);
    if (known !== undefined) return known;
    const parameters = Array.from({ length: count }, (_, index) => `$${index + 1}`).join(', ');
    const text = `select ${quoted(this.settings.schema)}.${verb}(${parameters})${this.condition}`;
    this.texts.set(verb, text);
    return text;
  }

  private async answerOf(place: Place, asked: Promise<Asked>): Promise<Answer> {
    const { state, grant: text, flights } = await this.keepEarly(place, asked);
    if (state === 'queued') {
      this.wait(place);
      return { state, flights: flights ?? 0 };
    }
    place.state = 'settled';
    if (state === 'refused') return { state };
    const grant = grantOf(text);
    place.token = grant.token;
    return { state, grant };
  }

  /**
   * What is told of the place before the caller has this answer waits for that. Of several messages that come in one piece, the
   * next one is heard before the caller has made anything of an answer.
   */
  private async keepEarly<T>(place: Place, answer: Promise<T>): Promise<T> {
    place.asked++;
    place.early ??= [];
    try {
      return await answer;
    } finally {
      startSoon(() => {
        if (--place.asked === 0) this.tellEarly(place);
      });
    }
  }

  private tellEarly(place: Place): void {
    const { early = [] } = place;
    place.early = undefined;
    for (const message of early) this.tell(message);
  }

  private async leavePlace(
    slot: Slot,
    ask: (place: Place) => Promise<Told & { known: boolean }>,
  ): Promise<boolean> {
    const place = this.places.of(slot);
    if (place === undefined) return false;
    this.tellEarly(place);
    this.settle(place);
    const { known } = await ask(place);
    this.places.delete(place);
    return known;
  }

  private tell(message: Message): void {
    const place = this.places.numbered(message.id);
    if (place === undefined || this.over) return;
    // A hold that is to be upgraded is there, and can hear of a theft at once.
    if (place.early !== undefined && (message.event === 'granted' || place.tokenBefore < 0n)) {
      place.early.push(message);
      return;
    }
    if (message.event === 'robbed') {
      // An answer may come before a message that is older; and what it tells is heard after a message that came behind it.
      if (place.waitsForFirst) {
        place.robbed = message;
        return;
      }
      this.settle(place);
      this.places.delete(place);
      this.events.robbed(place.slot.id, message.thief ?? 'somebody unknown');
      // Its row has served its purpose.
      this.call('withdraw', place.number, place.key).catch(() => {});
      return;
    }
    const grant = grantOf(message);
    if (grant.token <= place.token || place.state !== 'waits') return;
    this.settle(place);
    place.token = grant.token;
    this.events.granted(place.slot.id, grant);
    if (place.robbed !== undefined) this.tell(place.robbed);
  }

  private wait(place: Place): void {
    // It may have been robbed by what came in one piece with the answer.
    if (this.places.of(place.slot) !== place) return;
    place.state = 'waits';
    if (++this.waits === 1 && this.lookTimer === undefined) this.lookLater();
  }

  private settle(place: Place): void {
    if (place.state === 'waits') this.waits--;
    place.state = 'settled';
  }

  /** However long the answers take, the heartbeats go out in time. */
  private beat(): void {
    this.beatTimer = startTimer(() => {
      this.beat();
      this.askForBeat().catch(() => {}); // where that ends the session, the connection has told
    }, this.settings.ttl / BEATS_PER_TTL);
  }

  private async askForBeat(): Promise<void> {
    const ask = () => this.call<Told & { known: boolean; more: boolean }>('beat');
    let { known, more } = await ask();
    if (known) return;
    while (more) ({ known, more } = await ask());
    this.giveUp(forgottenError());
  }

  private lookLater(): void {
    this.lookTimer = startTimer(async () => {
      try {
        while (this.waits > 0 && (await this.call<Told & { more: boolean }>('look')).more);
      } catch {
        // Where that ends the session, the connection has told.
      }
      this.lookTimer = undefined;
      if (!this.over && this.waits > 0) this.lookLater();
    }, LOOK_MS);
  }

  private giveUp(why: LockError): void {
    this.ended(why);
    this.wire.drop(why);
  }

  private stop(): void {
    this.over = true;
    this.beatTimer?.clear();
    this.lookTimer?.clear();
  }
}
