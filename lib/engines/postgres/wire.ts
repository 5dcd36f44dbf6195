// One connection to the server: questions go out one behind another, and are answered in that order.
//
// The server proves with each answer that it has heard of us since the question was sent. Where it stays silent for too long
// while it owes an answer, the connection is given up. Neither the socket nor a timer keeps the process alive.
import { type Moment, moment, now, startDeadline, startTimer, type Timer } from '../../common/clock';
import { LockError } from '../../common/errors';
import { ask, type Client, newClient, type Query, type Row } from './client';
import type { PostgresConfig } from './config';
import { isFatal, silentError, toLockError } from './errors';

/** For how long the server may owe an answer. */
const SILENCE_MS_MAX = 5000;
/** How long a closed connection may take to end by itself. */
const END_MS_MAX = 1000;
/** How many questions are on their way at a time. More of them are no faster, and would keep a heartbeat waiting. */
const ON_THEIR_WAY_MAX = 32;

export interface WireEvents {
  notified(payload: string): void;
  /** An answer has come to a question that was sent then. */
  proved(sent: Moment): void;
  /** Told before the questions that are not answered yet reject. */
  ended(why: LockError): void;
}

interface Question {
  readonly what: string;
  readonly query: Query;
  resolve(rows: Row[]): void;
  reject(error: LockError): void;
}

export class Wire {
  private over: LockError | undefined = undefined;
  private readonly waiting = new Set<Question>();
  private readonly onTheirWay = new Set<Question>();
  private readonly onTheirWayMax: number;
  /** When the server began to owe the answer that is due next. */
  private owedSince = 0;
  private timer: Timer | undefined = undefined;

  private constructor(
    private readonly client: Client,
    private readonly schema: string,
    private readonly events: WireEvents,
  ) {
    this.onTheirWayMax = client.pipeline === true ? ON_THEIR_WAY_MAX : 1;
    client.on('error', (error) => this.broken(error));
    client.on('end', () => this.broken(new Error('the connection was closed')));
    client.on('notification', ({ payload }) => {
      if (this.over === undefined) this.events.notified(payload ?? '');
    });
    client.unref();
  }

  static async open(connection: PostgresConfig, schema: string, events: WireEvents): Promise<Wire> {
    const what = 'connect to PostgreSQL';
    let client: Client;
    try {
      client = newClient(connection);
    } catch (error) {
      // It reads the files that the URL names.
      throw toLockError(what, error, schema);
    }
    let failure: Error | undefined;
    const timer = startDeadline(
      () => {
        failure = silentError(SILENCE_MS_MAX / 1000);
        client.connection.stream.destroy();
      },
      Math.min(connection.connectionTimeoutMillis || SILENCE_MS_MAX, SILENCE_MS_MAX),
    );
    client.on('error', () => {}); // the promise says the same
    try {
      await client.connect();
    } catch (error) {
      client.connection.stream.destroy();
      throw toLockError(what, failure ?? flattened(error), schema);
    } finally {
      timer.clear();
    }
    return new Wire(client, schema, events);
  }

  /** Of the server's process, unless a pooler has told another number. */
  get processId(): number | null {
    return this.client.processID;
  }

  /** @param what is to be done, in words */
  ask(what: string, query: Query): Promise<Row[]> {
    if (this.over !== undefined) return Promise.reject(this.over);
    return new Promise((resolve, reject) => {
      this.waiting.add({ what, query, resolve, reject });
      this.send();
    });
  }

  /** Says goodbye. Nothing may be asked any more. */
  async close(): Promise<void> {
    if (this.over !== undefined) return;
    this.end(new LockError('ERR_LOCK_CLOSED', 'the session was closed'));
    const timer = startTimer(() => this.client.connection.stream.destroy(), END_MS_MAX);
    await this.client.end().catch(() => {});
    timer.clear();
  }

  /** Gives it up. */
  drop(why: LockError): void {
    this.end(why);
    this.client.connection.stream.destroy();
  }

  private send(): void {
    for (const question of this.waiting) {
      if (this.onTheirWay.size >= this.onTheirWayMax) return;
      const sent = moment();
      if (this.onTheirWay.size === 0) this.owedSince = sent.time;
      this.waiting.delete(question);
      this.onTheirWay.add(question);
      ask(this.client, question.query, (error, rows) => {
        if (error === null) this.answered(question, sent, rows as Row[]);
        else this.refused(question, error);
      });
    }
    if (this.onTheirWay.size > 0 && this.timer === undefined) this.arm(SILENCE_MS_MAX);
  }

  private answered(question: Question, sent: Moment, rows: Row[]): void {
    if (!this.settle(question)) return;
    this.events.proved(sent);
    question.resolve(rows);
    this.send();
  }

  private refused(question: Question, error: unknown): void {
    if (this.over !== undefined) return;
    if (isFatal(error)) {
      this.broken(error);
      return;
    }
    this.settle(question);
    question.reject(toLockError(question.what, error, this.schema));
    this.send();
  }

  private settle(question: Question): boolean {
    if (this.over !== undefined) return false;
    this.onTheirWay.delete(question);
    this.owedSince = now();
    return true;
  }

  private broken(error: unknown): void {
    if (this.over !== undefined) return;
    const why = toLockError('keep the session with PostgreSQL', error, this.schema);
    this.giveUp(why);
  }

  private giveUp(why: LockError): void {
    this.events.ended(why);
    this.drop(why);
  }

  private end(why: LockError): void {
    if (this.over !== undefined) return;
    this.over = why;
    this.timer?.clear();
    for (const question of [...this.onTheirWay, ...this.waiting]) question.reject(why);
    this.onTheirWay.clear();
    this.waiting.clear();
  }

  private arm(ms: number): void {
    this.timer = startDeadline(() => {
      this.timer = undefined;
      this.listen();
    }, ms);
  }

  private listen(): void {
    if (this.over !== undefined || this.onTheirWay.size === 0) return;
    const left = this.owedSince + SILENCE_MS_MAX - now();
    if (left > 0) this.arm(Math.ceil(left));
    else this.giveUp(silentError(SILENCE_MS_MAX / 1000));
  }
}

/** Node tells of several addresses that could not be reached by an error without words. */
function flattened(error: unknown): unknown {
  if (!(error instanceof AggregateError) || error.message !== '') return error;
  error.message = error.errors.map(({ message }: Error) => message).join('; ');
  return error;
}
