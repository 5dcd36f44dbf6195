// Agents request, steal, abort and die, all at once. What they saw is judged afterwards by the clock that all of them
// share: a hold lasts from its callback's beginning to its end, or, if it was robbed, to the moment at which a thief may
// have robbed it at the earliest. No two of them overlap that exclude each other, and nobody is robbed without a thief.
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Agent, conforms, SEPARATE_KINDS } from './support/web-locks';

const STORM_MS = 3000;
const AGENTS = 5;
const VICTIMS = 2;

/** Times are in nanoseconds since the test began. A line of the log of an agent each. */
interface Hold {
  id: string;
  exclusive: boolean;
  requested: number;
  began: number;
  ended: number;
  /** When the agent learned how it ended. */
  told: number;
  robbed: boolean;
  /** Of a guard. */
  token?: string;
}
interface Theft {
  thief: string;
  requested?: number;
  began?: number;
}

/** Does everything for a while; resolves when all of its requests came to an end. */
function rage(agent: Agent, namespace: string, log: string, origin: string): Promise<number> {
  return agent.inside(
    async ({ manager, proclock, args }) => {
      const { appendFileSync } = require('node:fs') as typeof import('node:fs');
      const { threadId } = require('node:worker_threads') as typeof import('node:worker_threads');
      const lock = new proclock.SharedLock('ledger', { namespace: args.namespace });
      const origin = BigInt(args.origin);
      const now = () => Number(process.hrtime.bigint() - origin);
      const write = (line: object) => appendFileSync(args.log, `${JSON.stringify(line)}\n`);
      const chance = (part: number) => Math.random() < part;
      const turns = async () => {
        for (let n = Math.floor(Math.random() * 3); n > 0; n--) await new Promise(setImmediate);
      };
      let count = 0;

      async function request() {
        const id = `${process.pid}/${threadId}/${++count}`;
        const steal = chance(0.1);
        const exclusive = steal || chance(0.5);
        const ifAvailable = !steal && chance(0.2);
        const controller = new AbortController();
        const requested = now();
        let began = 0;
        let ended = 0;
        if (steal) write({ thief: id, requested });
        const outcome = manager.request(
          'ledger',
          {
            steal,
            ifAvailable,
            mode: exclusive ? 'exclusive' : 'shared',
            ...(steal || ifAvailable ? {} : { signal: controller.signal }),
          },
          async (lock) => {
            if (lock === null) return;
            began = now();
            if (steal) write({ thief: id, began });
            await turns();
            ended = now();
          },
        );
        if (chance(0.2)) void turns().then(() => controller.abort());
        const robbed = await outcome.then(
          () => false,
          () => true,
        );
        if (began === 0) return;
        if (robbed) await new Promise(setImmediate);
        write({ id, exclusive, requested, began, ended: ended || now(), told: now(), robbed });
      }

      function guard() {
        const id = `${process.pid}/${threadId}/${++count}`;
        const requested = now();
        const guard = lock.tryExclusive();
        if (guard === null) return;
        const began = now();
        const ended = now();
        let robbed = false;
        try {
          guard.release();
        } catch (error) {
          if ((error as { code: string }).code !== 'ERR_LOCK_LOST') throw error;
          robbed = true;
        }
        write({
          id,
          exclusive: true,
          requested,
          began,
          ended,
          told: now(),
          robbed,
          token: String(guard.token),
        });
      }

      for (const end = now() + args.ms * 1e6; now() < end; ) {
        if (chance(0.2)) guard();
        else await Promise.all(Array.from({ length: 1 + Math.floor(Math.random() * 3) }, request));
        await turns();
      }
      lock.close();
      return count;
    },
    { namespace, log, ms: STORM_MS, origin },
  );
}

/** The end of the hold as far as it is certain. */
function certainEnd(hold: Hold, thefts: Map<string, Theft>): { explained: boolean; end: number } {
  if (!hold.robbed) return { explained: true, end: hold.ended };
  let [explained, end] = [false, hold.ended];
  for (const { thief, requested, began } of thefts.values()) {
    // A thief that died may have robbed without having come to say so.
    if (thief === hold.id || requested! > hold.told || (began ?? Number.POSITIVE_INFINITY) < hold.requested)
      continue;
    explained = true;
    end = Math.min(end, requested!);
  }
  return { explained, end };
}

function judge(log: string) {
  const holds: Hold[] = [];
  const thefts = new Map<string, Theft>();
  for (const line of readFileSync(log, 'utf8').split('\n').filter(Boolean)) {
    const said = JSON.parse(line) as Hold | Theft;
    if ('thief' in said) thefts.set(said.thief, { ...thefts.get(said.thief), ...said });
    else holds.push(said);
  }
  const violations: string[] = [];
  holds.sort((a, b) => a.began - b.began);
  let inside: Array<{ hold: Hold; end: number }> = [];
  let token = 0n;
  for (const hold of holds) {
    const { explained, end } = certainEnd(hold, thefts);
    if (!explained) violations.push(`robbed by nobody: ${JSON.stringify(hold)}`);
    if (end <= hold.began) continue;
    inside = inside.filter((other) => other.end > hold.began);
    for (const other of inside) {
      if (hold.exclusive || other.hold.exclusive)
        violations.push(`together: ${JSON.stringify(other.hold)} and ${JSON.stringify(hold)}`);
    }
    inside.push({ hold, end });
    if (hold.token !== undefined) {
      if (BigInt(hold.token) <= token) violations.push(`token ${hold.token} after ${token}`);
      token = BigInt(hold.token);
    }
  }
  return { violations, holds, thefts };
}

conforms(
  'no two hold together that exclude each other, nobody is robbed without a thief, all requests come to an end',
  AGENTS,
  async (test, ...agents) => {
    const log = join(tmpdir(), `${test.namespace}.log`);
    try {
      const victims = agents.slice(0, VICTIMS);
      const origin = String(process.hrtime.bigint());
      const rages = agents.map((agent) => rage(agent, test.namespace, log, origin));
      for (const one of rages) one.catch(() => {});
      for (const victim of victims) {
        await sleep((STORM_MS / (VICTIMS + 1)) * Math.random());
        await victim.kill();
      }
      for (const one of rages.slice(VICTIMS)) expect(await one).toBeGreaterThan(0);
      expect(existsSync(log)).toBe(true);
      const { violations, holds, thefts } = judge(log);
      expect(violations).toEqual([]);
      expect(thefts.size).toBeGreaterThan(0);
      expect(holds.filter(({ robbed }) => robbed).length).toBeGreaterThan(0);
      expect(holds.filter(({ token }) => token !== undefined).length).toBeGreaterThan(0);
    } finally {
      rmSync(log, { force: true });
    }
  },
  SEPARATE_KINDS,
);
