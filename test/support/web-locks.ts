// A case of the Web Locks conformance suite: what it says is checked with agents of three kinds.
import type { LockManager as Manager } from '../../lib';
import { LockManager } from '../../lib';
import { type Actor, type Call, type Ended, type RequestArgs, startActor } from './actor';
import { name, testNamespace } from './namespace';

export { name };

/** `one thread`: what another kind does in several agents is all done by one. */
export const AGENT_KINDS = ['one thread', 'threads', 'processes'] as const;
/** Those that consist of several agents. */
export const SEPARATE_KINDS = ['threads', 'processes'] as const;
export type AgentKind = (typeof AGENT_KINDS)[number];

type Proclock = typeof import('../../lib');

export interface Inside<A> {
  proclock: Proclock;
  manager: Manager;
  args: A;
}

let requests = 0;

/** A request that an agent made, and was queued or granted. */
export class Requested {
  /** What `request()` returned: settles with it. A rejection that nobody looks at is no error. */
  readonly outcome: Promise<unknown>;
  /** How the callback was called: exactly once; `null` if the request ended without. */
  readonly called: Promise<Call | null>;
  settled = false;

  constructor(
    readonly agent: Agent,
    readonly args: RequestArgs,
  ) {
    const { actor } = agent;
    this.outcome = actor.call('request', args);
    const settle = () => {
      this.settled = true;
    };
    this.outcome.then(settle, settle);
    this.called = actor.call('called', { request: args.as });
    this.called.catch(() => {});
  }

  /** Waits for the grant. */
  async granted(): Promise<void> {
    const { name, options } = this.args;
    expect(await this.called).toEqual({
      args: [{ name, mode: options?.mode ?? 'exclusive' }],
      synchronous: false,
    });
  }

  /** Fulfils the promise that the callback returned, and waits for the outcome. */
  async finish(value: unknown = null): Promise<void> {
    await this.agent.actor.call('fulfil', { request: this.args.as, value });
    expect(await this.outcome).toEqual(value);
  }

  /** Ends the callback of a request that was robbed, or aborted: nobody cares. */
  async finishUnheard(): Promise<void> {
    await this.agent.actor.call('fulfil', { request: this.args.as });
  }

  async fail(message: string): Promise<void> {
    await this.agent.actor.call('fail', { request: this.args.as, message });
  }

  async abort(reason?: string): Promise<void> {
    await this.agent.actor.call('abort', {
      guard: this.args.as,
      ...(reason === undefined ? {} : { reason }),
    });
  }

  calls(): Promise<number> {
    return this.agent.actor.call('calls', { request: this.args.as });
  }

  /** As `query()` shows it. */
  get info() {
    const { name, options } = this.args;
    const { pid, threadId } = this.agent.actor;
    return { name, mode: options?.mode ?? 'exclusive', pid, threadId };
  }
}

/** Each of them is granted, at the latest when the one before it has finished, and finishes. */
export async function takeTurns(...requests: Requested[]): Promise<void> {
  for (const request of requests) {
    await request.granted();
    await request.finish();
  }
}

export class Agent {
  constructor(
    readonly actor: Actor,
    private readonly namespace: string,
  ) {}

  /** Makes a request; resolves when it is queued, granted or refused. */
  async request(
    options: RequestArgs['options'] & { name?: string; namespace?: string; signal?: boolean } = {},
  ): Promise<Requested> {
    const { name: wanted = name, namespace = this.namespace, signal = false, ...rest } = options;
    const as = `request ${++requests}`;
    const requested = new Requested(this, { namespace, name: wanted, as, options: rest, signal });
    await this.actor.call('ping');
    return requested;
  }

  /** A request that is granted. */
  async hold(options: Parameters<Agent['request']>[0] = {}): Promise<Requested> {
    const requested = await this.request(options);
    await requested.granted();
    return requested;
  }

  /** Runs a function in the agent. It can use nothing from outside but what it is given. */
  inside<T, A = undefined>(fn: (context: Inside<A>) => T | PromiseLike<T>, args?: A): Promise<T> {
    const source = `return (${fn})({
      proclock, manager: new proclock.LockManager({ namespace: args.namespace }), args: args.args });`;
    return this.actor.run(source, { namespace: this.namespace, args });
  }

  /** As `query()` shows it. */
  info() {
    return { pid: this.actor.pid, threadId: this.actor.threadId };
  }

  /** From outside, at whatever it does. */
  async kill(): Promise<void> {
    const killed: Ended =
      this.actor.kind === 'thread' ? { code: 1, signal: null } : { code: null, signal: 'SIGKILL' };
    expect(await this.actor.destroy()).toEqual(killed);
  }
}

/** Sees what the agents do, and does nothing itself. */
export class Case {
  readonly namespace = testNamespace();
  readonly manager = new LockManager({ namespace: this.namespace });

  constructor(
    readonly kind: AgentKind,
    readonly agents: readonly Agent[],
  ) {}

  /** Those who hold, in any order, and those who wait, in the order of the queue: nobody else. */
  async expectState(held: readonly Requested[], pending: readonly Requested[] = []): Promise<void> {
    const seen = await this.manager.query();
    const plain = (infos: typeof seen.held) =>
      infos.map(({ name, mode, pid, threadId }) => ({ name, mode, pid, threadId }));
    const sorted = (infos: ReturnType<typeof plain>) => infos.map((info) => JSON.stringify(info)).sort();
    expect(sorted(plain(seen.held))).toEqual(sorted(held.map(({ info }) => info)));
    expect(plain(seen.pending)).toEqual(pending.map(({ info }) => info));
  }

  /** Nothing is held, nothing is waited for, under whatever name. */
  async expectIdle(): Promise<void> {
    expect(await this.manager.query()).toEqual({ held: [], pending: [] });
  }
}

/** Actors that serve one case after the other. Those that ended are replaced. */
const pool: Record<'fork' | 'thread', Actor[]> = { fork: [], thread: [] };

async function actorsFor(kind: AgentKind, count: number, namespace: string): Promise<Actor[]> {
  const actorKind = kind === 'threads' ? 'thread' : 'fork';
  const ready = pool[actorKind];
  const wanted = kind === 'one thread' ? 1 : count;
  const missing = Array.from({ length: Math.max(0, wanted - ready.length) }, () =>
    startActor(actorKind, { namespace, lasting: true }),
  );
  for (const actor of await Promise.all(missing)) {
    ready.push(actor);
    void actor.ended.then(() => ready.splice(ready.indexOf(actor), 1));
  }
  return Array.from({ length: count }, (_, n) => ready[n % wanted]!);
}

/** One test per kind: the property, with that many agents. In the end nothing is held, and nobody waits. */
export function conforms(
  property: string,
  count: number,
  check: (test: Case, ...agents: Agent[]) => Promise<void>,
  kinds: readonly AgentKind[] = AGENT_KINDS,
): void {
  test.each(kinds)(`${property} (%s)`, async (kind) => {
    const agents: Agent[] = [];
    const one = new Case(kind, agents);
    for (const actor of await actorsFor(kind, count, one.namespace))
      agents.push(new Agent(actor, one.namespace));
    await check(one, ...agents);
    await one.expectIdle();
  });
}
