// Members of a circle: actors that hold one lock, and wait for the next one.
import { type Actor, type ActorKind, startActor } from './actor';
import type { Info, Pending, PlainError } from './party';
import { until } from './until';

/** How a member holds and waits. */
export type Way = 'sync' | 'callback' | 'guard';

/** What became of a member's wait. */
export type Outcome = 'granted' | (PlainError & { cycle?: Info[] });

export interface Wanted {
  name: string;
  mode?: 'shared' | 'exclusive';
  timeout?: number;
  deadlock?: 'throw' | 'warn';
  /** Whether the wait can be aborted. */
  signal?: boolean;
  fair?: boolean;
}

/** Runs in the actor: takes the first lock, says so, waits until it is told, then takes the second one. */
const MEMBER = `
  const { way, has, wants } = args;
  const optionsOf = ({ mode = 'exclusive', timeout, deadlock, signal }) => ({
    exclusive: mode === 'exclusive',
    ...(timeout === undefined ? {} : { timeout }),
    ...(deadlock === undefined ? {} : { deadlock }),
    ...(signal ? { signal: new AbortController().signal } : {}),
  });
  const said = globalThis.member = { warnings: [], go: undefined, gives: undefined };
  process.on('warning', ({ code, message }) => said.warnings.push({ code, message }));
  const started = new Promise((resolve) => { said.go = resolve; });
  const given = new Promise((resolve) => { said.gives = resolve; });
  const report = (error) => ({
    name: error.name, code: error.code, message: error.message,
    cycle: error.cycle?.map(({ since, ...info }) => ({ ...info, since: since.getTime() })),
  });
  const mine = has === null ? null : lock(has);
  const next = lock(wants);
  if (way === 'callback') {
    const run = mine.acquire(optionsOf(has), async () => {
      await Promise.race([started, given]);
      if (args.beside) { const wait = next.acquire(optionsOf(wants)); wait.catch(() => {}); await given; said.waits = wait; return 'gave'; }
      try {
        await next.acquire(optionsOf(wants), () => {});
        return 'granted';
      } catch (error) { return report(error); }
    });
    said.result = run;
  } else if (way === 'guard') {
    const guard = mine === null ? null : await mine.acquire(optionsOf(has));
    guards.set('mine', guard);
    said.result = started.then(async () => {
      try {
        (await next.acquire(optionsOf(wants))).release();
        return 'granted';
      } catch (error) { return report(error); } finally { guard?.release(); }
    });
  } else {
    const guard = mine === null ? null : mine.acquireSync(optionsOf(has));
    said.result = started.then(() => {
      try {
        next.acquireSync(optionsOf(wants)).release();
        return 'granted';
      } catch (error) { return report(error); } finally { guard?.release(); }
    });
  }
`;

/** An actor that holds one lock, and is to wait for another. */
export class Member {
  private outcome: Pending<unknown> | undefined;

  private constructor(
    readonly actor: Actor,
    private readonly wants: Wanted,
  ) {}

  static async start(
    kind: ActorKind,
    namespace: string,
    way: Way,
    has: Wanted | null,
    wants: Wanted,
    more: { beside?: boolean } = {},
  ): Promise<Member> {
    const actor = await startActor(kind, { namespace });
    await actor.run(MEMBER, { way, has, wants, ...more });
    if (has !== null) {
      await until(async () => {
        const held = await actor.run<number>(`return lock(args).query().held.length`, has);
        return held > 0;
      });
    }
    return new Member(actor, wants);
  }

  /** Begins its wait; resolves when it is in the queue. `among`: so many wait for that lock then. */
  async begin(query: (name: string) => number): Promise<void> {
    const before = query(this.wants.name);
    this.outcome = this.actor.begin('run', {
      source: 'globalThis.member.go(); return globalThis.member.result;',
    });
    await until(() => query(this.wants.name) > before);
  }

  get settled(): boolean {
    return this.outcome?.settled ?? false;
  }

  async result(): Promise<Outcome> {
    return (await this.outcome?.promise) as Outcome;
  }

  /** The codes of the warnings that its process, or thread, has had. */
  warnings(): Promise<Array<{ code: string; message: string }>> {
    return this.actor.run('return globalThis.member.warnings');
  }

  /** Gives back what it holds, by another branch of its code. */
  async give(): Promise<void> {
    await this.actor.run('globalThis.member.gives();');
  }
}
