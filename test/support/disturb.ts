// What disturbs processes from outside: calls that are refused, namespaces of their own, a process that stands still inside
// the latch. Where the machine does not allow it, the reason is printed, and the tests that need it are skipped.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Actor, startActor } from './actor';
import { IS_PORTABLE, isDescriptor, Layout, readAt, segmentFile } from './segment';

const said = new Set<string>();

/** Why something can not be tested here, once. */
function say(what: string): void {
  if (!said.has(what)) console.log(`not tested here: ${what}`);
  said.add(what);
}

const firstLine = ({ error, stderr }: { error?: Error; stderr: string }): string =>
  error?.message ?? stderr.split('\n')[0] ?? '';

/** The words before a command that put it into namespaces of its own; null where that is not possible. */
export function unshare(...flags: string[]): string[] | null {
  if (IS_PORTABLE) {
    say(`unshare ${flags.join(' ')}: processes of macOS are all in one namespace, and have one clock`);
    return null;
  }
  const words = ['unshare', ...flags, '--fork', '--kill-child'];
  const trial = spawnSync('unshare', [...words.slice(1), 'true'], { encoding: 'utf8' });
  if (trial.status === 0) return words;
  say(`unshare ${flags.join(' ')}: ${firstLine(trial)}`);
  return null;
}

let folder: string | undefined;
afterAll(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true });
});

/** A library of a C source beside this file; null where there is no compiler. */
function library(source: string): string | null {
  folder ??= mkdtempSync(join(tmpdir(), 'proclock-disturb-'));
  const out = join(folder, source.replace('.c', '.so'));
  const built = spawnSync(
    'cc',
    ['-shared', '-fPIC', '-O1', '-w', '-o', out, join(__dirname, source), '-ldl'],
    {
      encoding: 'utf8',
    },
  );
  if (built.status === 0) return out;
  if (built.error === undefined) throw new Error(built.stderr);
  say(`${source}: ${firstLine(built)}`);
  return null;
}

const refuser = library('refuse.c');
const disturber = library('disturb.c');

/** `test`, where these are there: no null among them. The reason was printed. */
export const testWith = (...needed: unknown[]): jest.It => (needed.includes(null) ? test.skip : test);
export const needsCompiler = refuser;

/** The environment of a process in which these calls are refused (support/refuse.c). */
export function refusing(...calls: string[]): Record<string, string> {
  const before = process.env.LD_PRELOAD;
  return { LD_PRELOAD: [before, refuser].filter(Boolean).join(' '), REFUSE: calls.join(' ') };
}

/** A statement for a process that does this to itself (support/disturb.c). */
export const disturbing = (what: string): string =>
  `process.env.DISTURB = ${JSON.stringify(what)};
   try { process.dlopen({ exports: {} }, ${JSON.stringify(disturber)}); } catch {} // no addon
   delete process.env.DISTURB;`;

/** Milliseconds until the promise is fulfilled. */
export async function timeOf(promise: Promise<unknown>): Promise<number> {
  const from = performance.now();
  await promise;
  return performance.now() - from;
}

/** Percent of a processor that the actor uses in that time, in all its threads. */
export function loadOf(actor: Actor, ms = 500): Promise<number> {
  return actor.run<number>(
    `const before = process.cpuUsage();
     await new Promise((resolve) => setTimeout(resolve, args));
     const { user, system } = process.cpuUsage(before);
     return (user + system) / 10 / args;`,
    ms,
  );
}

const MEASUREMENTS = 3;

/**
 * The least of a few measurements; the first one below the bound is enough. What is measured shows in each of them, what
 * others do on this machine only in some.
 */
export async function leastOf(bound: number, measure: () => Promise<number>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let n = 0; n < MEASUREMENTS && least >= bound; n++) least = Math.min(least, await measure());
  return least;
}

/** The actor does not spin: it uses less of a processor than that, in percent. */
export async function expectLoadBelow(bound: number, actor: Actor, ms?: number): Promise<void> {
  expect(await leastOf(bound, () => loadOf(actor, ms))).toBeLessThan(bound);
}

/** How many descriptors the actor has. */
export const descriptorsOf = async (actor: Actor): Promise<number> => {
  const all = await actor.run<string[]>(`return require('node:fs').readdirSync('/proc/self/fd');`);
  return all.filter(isDescriptor).length;
};

/** A statement for a process: from now on it can open no file, until it calls `giveBack()`. */
export const EXHAUST = `
  const taken = [];
  try {
    for (;;) taken.push(require('node:fs').openSync('/dev/null'));
  } catch (error) {
    if (error.code !== 'EMFILE') throw error;
  }
  globalThis.giveBack = () => { while (taken.length > 0) require('node:fs').closeSync(taken.pop()); };`;

export const LIMITED_DESCRIPTORS = ['sh', '-c', 'ulimit -n 120 && exec "$@"', 'sh'];

// ---- inside the latch

/** By the pid in its own PID namespace, and the inode of that. On a Mac all are in one. */
function numberOf(namespace: string, { pid, systemPid }: Actor): bigint {
  const file = segmentFile(namespace);
  const inode = IS_PORTABLE ? 1n : BigInt(readlinkSync(`/proc/${systemPid}/ns/pid`).replaceAll(/\D/g, ''));
  const entries = readAt(file, Layout.PROCESSES, 64 * 64);
  for (let at = 0; at < entries.length; at += 64) {
    const isLive = entries.readUInt32LE(at) === 1;
    if (isLive && entries.readInt32LE(at + 4) === pid && entries.readBigUInt64LE(at + 16) === inode)
      return entries.readBigUInt64LE(at + 32);
  }
  throw new Error(`process ${pid} is not among the first of ${file}`);
}

/** The number of the process that is inside the latch, or 0. */
export const latchOwner = (namespace: string): bigint =>
  readAt(segmentFile(namespace), Layout.LATCH, 8).readBigUInt64LE() >> 3n;

const TRIES = 400;

/** An actor that enters the latch of the namespace all the time. */
export async function startBusy(namespace: string, via?: readonly string[]): Promise<Actor> {
  const actor = await startActor('fork', { namespace, ...(via && { via }) });
  await actor.run(
    `// A query of the whole namespace passes over all slots that were ever in use.
     const it = lock({ name: 'busy' });
     const held = await Promise.all(Array.from({ length: 5000 }, () => it.shared()));
     for (const guard of held) guard.release();
     const manager = new proclock.LockManager({ namespace: args });
     globalThis.busy = true;
     (async () => {
       while (globalThis.busy) {
         await manager.query().catch(() => undefined); // somebody else is inside
         await new Promise((resolve) => setImmediate(resolve));
       }
     })();`,
    namespace,
  );
  return actor;
}

/** Stops it inside. Until cont() or the end of the actor, nobody gets in. */
export async function stopInside(actor: Actor, namespace: string): Promise<void> {
  const number = numberOf(namespace, actor);
  for (let tries = 0; tries < TRIES; tries++) {
    await sleep(1 + Math.random() * 3);
    await actor.stop();
    if (latchOwner(namespace) === number) return;
    actor.cont();
  }
  throw new Error(`not stopped inside the latch in ${TRIES} tries`);
}

/** A process that stands still inside the latch of the namespace. */
export async function stall(namespace: string, via?: readonly string[]): Promise<Actor> {
  const actor = await startBusy(namespace, via);
  await stopInside(actor, namespace);
  return actor;
}

/** It goes on, and comes there no more. */
export async function unstall(actor: Actor): Promise<void> {
  actor.cont();
  await actor.run('globalThis.busy = false;');
}
