// The way to the cluster: one connection at a time, to one of the endpoints; calls over it, each with a deadline; and who we
// are, where etcd wants to know.
//
// No socket is trusted because it was good a moment ago. When a call gets no answer in time, or an answer that says that this
// member can not help, the whole connection is given up: everything else that is on its way over it fails as well, and the
// next call goes to the next endpoint. So a call that failed with `ERR_LOCK_UNAVAILABLE` may have been carried out.
//
// Neither a socket nor a timer keeps the process alive.
import { now, startDeadline, startTimer, type Timer } from '../../common/clock';
import type { LockError } from '../../common/errors';
import { type Call, type CallError, type Client, newClient, newMetadata, type Stream } from './client';
import type { Settings } from './config';
import { isDefinite, isServerError, Status, silentError, toLockError } from './errors';
import { authenticate, type Method } from './messages';

/**
 * How long a call may take: twice as long after each one that took too long, and half of that after each that was quick. Who is
 * as impatient as ever with a cluster whose disks are slow asks again and again, and never hears of what is done.
 */
const CALL_MS_MIN = 2500;
const CALL_MS_MAX = 10_000;
/** The part of its time in which a call that is answered is quick. */
const QUICK_PART = 0.25;
/**
 * Of `ttl`, how long an urgent call may take, as a keep-alive is: so there is time to ask another member, before a hold is
 * not certain any more.
 */
const URGENT_CALLS_PER_TTL = 3;
const URGENT_CALL_MS_MIN = 500;
/**
 * How many calls are on their way at a time, but for urgent ones. etcd answers as fast as its disk lets it: of thousands that are
 * on their way, the last one is answered late, though nothing is wrong.
 */
export const CALLS_MAX = 128;
/** The first one over a connection has to wait for that as well. */
const FIRST_CALL_FACTOR = 2;
/** With so many tokens a call is tried: one may be older than etcd allows by the time that it is used. */
const TOKENS_MAX = 5;
/** How long until an endpoint that failed is asked again, if there is no other: at first, and at most. */
const PAUSE_MS_MIN = 25;
const PAUSE_MS_MAX = 500;

/** One connection, and what is on its way over it. */
class Link {
  readonly calls = new Set<{ fail(error: unknown): void }>();
  /** Whether it has been answered. */
  proven = false;
  over = false;

  constructor(readonly client: Client) {}

  /** Fails what is on its way. */
  end(why: unknown): void {
    this.over = true;
    for (const call of [...this.calls]) call.fail(why);
    this.client.close();
  }
}

export class Wire {
  private link: Link | undefined = undefined;
  /** Of the endpoint that is next, counted on and on. */
  private index: number;
  private over: LockError | undefined = undefined;
  private token: string | undefined = undefined;
  private renewing: Promise<string> | undefined = undefined;
  /** How many calls failed since one was answered. */
  private failures = 0;
  /** How long a call may take that is not urgent. */
  private callMs = CALL_MS_MIN;
  private readonly urgentCallMs: number;
  private calls = 0;
  /** Calls that are to be made when others have been answered. */
  private readonly turns: Array<() => void> = [];

  /** @param first the endpoint to begin with */
  constructor(
    private readonly settings: Settings,
    first: number,
  ) {
    this.index = first;
    this.urgentCallMs = Math.max(Math.round(settings.ttl / URGENT_CALLS_PER_TTL), URGENT_CALL_MS_MIN);
  }

  /** @param what is to be done, in words */
  async call<Q, A>(what: string, method: Method<Q, A>, question: Q): Promise<A> {
    if (this.calls === CALLS_MAX) await new Promise<void>((resolve) => this.turns.push(resolve));
    else this.calls++;
    try {
      return await this.asSomebody(what, (token) =>
        this.perform((link, fail, done) =>
          link.client.makeUnaryRequest(
            method.path,
            method.serialize,
            method.deserialize,
            question,
            newMetadata({ token }),
            {},
            (error, answer) => (error === null ? done(answer as A) : fail(error)),
          ),
        ),
      );
    } finally {
      const next = this.turns.shift();
      if (next === undefined) this.calls--;
      else next();
    }
  }

  /** The first answer to one question of a stream; urgent. */
  async callStream<Q, A>(what: string, method: Method<Q, A>, question: Q): Promise<A> {
    return this.asSomebody(what, (token) =>
      this.perform((link, fail, done) => {
        const stream = this.openStream(link, method, { token });
        stream.on('data', done);
        stream.on('error', fail);
        stream.on('end', () => fail(new Error('the stream has ended')));
        stream.write(question);
        return stream;
      }, this.urgentCallMs),
    );
  }

  /**
   * A stream that stays open until it fails, or is cancelled. `failed` is told once, also where the connection is given up
   * because of something else; not where it was cancelled.
   */
  async stream<Q, A>(
    what: string,
    method: Method<Q, A>,
    on: { data(answer: A): void; failed(error: LockError): void },
  ): Promise<Stream<Q, A>> {
    const { prefix } = this.settings;
    let token: string | undefined;
    try {
      token = await this.firstToken();
    } catch (error) {
      throw this.over ?? toLockError(what, error, prefix);
    }
    if (this.over !== undefined) throw this.over;
    const link = this.current();
    const stream = this.openStream(link, method, { token, hasleader: 'true' });
    const call = {
      fail: (error: unknown) => {
        if (!link.calls.delete(call)) return;
        stream.cancel();
        if (isServerError(error) && isAboutToken(error)) this.token = undefined;
        else if (!link.over) this.fail(link, error);
        on.failed(toLockError(what, error, prefix));
      },
    };
    link.calls.add(call);
    stream.on('data', (answer) => {
      if (link.calls.has(call)) on.data(answer);
    });
    stream.on('error', call.fail);
    stream.on('end', () => call.fail(new Error('the stream has ended')));
    return {
      write: (question) => stream.write(question),
      on: (...args: Parameters<typeof stream.on>) => stream.on(...args),
      cancel: () => {
        link.calls.delete(call);
        stream.cancel();
      },
    } as Stream<Q, A>;
  }

  /** The next call brings a new token, should etcd ask for one. */
  forgetToken(): void {
    this.token = undefined;
  }

  /** For a while, if there is no endpoint left that has not just failed. */
  pause(): Promise<void> {
    const late = this.failures - this.settings.endpoints.length;
    if (late < 0 || this.over !== undefined) return Promise.resolve();
    const ms = Math.min(PAUSE_MS_MIN * 2 ** Math.min(late, 10), PAUSE_MS_MAX);
    return new Promise((resolve) => startTimer(resolve, ms));
  }

  /** Fails what is on its way. Calls can be made on. */
  abandon(why: LockError): void {
    this.link?.end(why);
    this.link = undefined;
  }

  close(why: LockError): void {
    this.over ??= why;
    this.abandon(why);
  }

  // ----

  private current(): Link {
    const { endpoints, credentials } = this.settings;
    if (this.link === undefined) {
      const endpoint = endpoints[this.index % endpoints.length];
      this.link = new Link(newClient(endpoint as (typeof endpoints)[number], credentials));
    }
    return this.link;
  }

  /** Gives the connection up. */
  private fail(link: Link, why: unknown): void {
    if (link.over) return;
    this.failures++;
    if (this.link === link) {
      this.link = undefined;
      this.index++;
    }
    // The others are only cut off: whether what they asked for was done is not known.
    link.end(isServerError(why) ? new Error(why.message, { cause: why }) : why);
  }

  private openStream<Q, A>(
    link: Link,
    method: Method<Q, A>,
    metadata: Record<string, string | undefined>,
  ): Stream<Q, A> {
    const { path, serialize, deserialize } = method;
    const stream = link.client.makeBidiStreamRequest(path, serialize, deserialize, newMetadata(metadata), {});
    stream.on('error', () => {}); // also after it was cancelled
    return stream;
  }

  /** One call over the current connection, which is given up if there is no answer. */
  private perform<A>(
    start: (link: Link, fail: (error: unknown) => void, done: (answer: A) => void) => Call,
    urgentMs?: number,
  ): Promise<A> {
    if (this.over !== undefined) return Promise.reject(this.over);
    const link = this.current();
    const isUrgent = urgentMs !== undefined;
    const limitMs = isUrgent
      ? Math.min(link.proven ? urgentMs : urgentMs * FIRST_CALL_FACTOR, CALL_MS_MIN)
      : this.callMs;
    const startedAt = now();
    return new Promise((resolve, reject) => {
      let timer: Timer | undefined;
      let call: Call | undefined;
      const settle = (): boolean => {
        timer?.clear();
        return link.calls.delete(entry);
      };
      const entry = {
        fail: (error: unknown) => {
          if (!settle()) return;
          call?.cancel();
          if (isServerError(error) && isDefinite(error)) this.answered(link);
          else this.fail(link, error);
          reject(error);
        },
      };
      link.calls.add(entry);
      timer = startDeadline(() => {
        if (!isUrgent) this.callMs = Math.min(limitMs * 2, CALL_MS_MAX);
        entry.fail(silentError(limitMs));
      }, limitMs);
      call = start(link, entry.fail, (answer) => {
        if (!settle()) return;
        call?.cancel();
        this.answered(link);
        if (!isUrgent && now() - startedAt < this.callMs * QUICK_PART)
          this.callMs = Math.max(this.callMs / 2, CALL_MS_MIN);
        resolve(answer);
      });
    });
  }

  private answered(link: Link): void {
    link.proven = true;
    this.failures = 0;
  }

  /** Calls with a token, if we have to have one; and again, with a new one, if etcd does not know it any more. */
  private async asSomebody<A>(what: string, call: (token: string | undefined) => Promise<A>): Promise<A> {
    try {
      let token = await this.firstToken();
      for (let tried = 1; ; tried++) {
        try {
          return await call(token);
        } catch (error) {
          if (token === undefined || tried === TOKENS_MAX) throw error;
          if (!isServerError(error) || !isAboutToken(error)) throw error;
          token = await this.tokenAfter(token);
        }
      }
    } catch (error) {
      throw this.over ?? toLockError(what, error, this.settings.prefix);
    }
  }

  /** `undefined` where nobody has to say who he is. */
  private async firstToken(): Promise<string | undefined> {
    return this.settings.auth === undefined ? undefined : this.tokenAfter(undefined);
  }

  /** Another one than that, which etcd does not know any more. Somebody else may find that it does not know this one either. */
  private async tokenAfter(old: string | undefined): Promise<string> {
    if (this.token !== undefined && this.token !== old) return this.token;
    this.renewing ??= this.login().finally(() => {
      this.renewing = undefined;
    });
    return this.renewing;
  }

  private async login(): Promise<string> {
    const { username, password } = this.settings.auth as NonNullable<Settings['auth']>;
    const { path, serialize, deserialize } = authenticate;
    try {
      const { token } = await this.perform<{ token: string }>((link, fail, done) =>
        link.client.makeUnaryRequest(
          path,
          serialize,
          deserialize,
          { name: username, password },
          newMetadata({}),
          {},
          (error: CallError | null, answer) =>
            error === null ? done(answer as { token: string }) : fail(error),
        ),
      );
      this.token = token;
    } catch (error) {
      // It has no users, and asks nobody who he is.
      if (!isServerError(error) || error.code !== Status.FAILED_PRECONDITION) throw error;
      this.token = '';
    }
    return this.token;
  }
}

/** It is unknown, or older than the last change of users and roles. */
function isAboutToken({ code }: { code: number }): boolean {
  return code === Status.UNAUTHENTICATED || code === Status.INVALID_ARGUMENT;
}
