// `npm run demo`: ten seconds in the life of a ledger that ten processes and threads share. With `-- --postgres [URL]` or
// `-- --etcd [URL]` the lock is over that engine, or over one that is started for it.
//
// Eight writers append under `exclusive`, two auditors read all of it under `shared`. One writer is killed between the
// halves of an entry, another while it waits. Exits with 0 if the ledger is right, the dead one's successor was told,
// and nobody got stuck.
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startAll } from './cast.mjs';
import { Display, thousands } from './display.mjs';
import { Ledger } from './ledger.mjs';
import { enter, placeOf } from './world.mjs';

const DURATION_MS = 10_000;
const FIRST_DEATH_MS = 3000;
const SECOND_DEATH_MS = 6000;
const LOOK_MS = 400; // for a person to see a state that is not going to last
const PATIENCE_MS = 10_000;
const POLL_MS = 5;

const folder = mkdtempSync(join(tmpdir(), 'proclock-demo-'));
const path = join(folder, 'ledger');
const namespace = `demo-${process.pid}-${Date.now().toString(36)}`;
const problems = [];
const told = [];
let actors = [];
let display;
let killedAt;
let leave = () => {};

function cleanUp() {
  for (const actor of actors) if (!actor.ended) actor.kill();
  rmSync(folder, { recursive: true, force: true });
  leave();
  display?.stop();
}

for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 })) {
  process.on(signal, () => process.exit(code));
}
process.on('exit', cleanUp);
process.stdout.on('error', () => process.exit(1)); // whoever read it has gone

const watchdog = setTimeout(
  () => {
    console.error('\nThe demo is stuck.');
    process.exit(1);
  },
  DURATION_MS + 2 * PATIENCE_MS,
);
watchdog.unref();

/** Resolves when `condition` holds; what is to be waited for is in other processes, so it is looked at. */
async function until(what, condition) {
  for (let waited = 0; !(await condition()); waited += POLL_MS) {
    if (waited > PATIENCE_MS) throw new Error(`waited in vain until ${what}`);
    await sleep(POLL_MS);
  }
}

function nextReport(actor, type) {
  return new Promise((resolve, reject) => {
    actor.on('message', (message) => message.type === type && resolve(message));
    actor.on('exit', () => reject(new Error(`${actor.label} ended before it was ${type}`)));
  });
}

function noteTold(actor, message) {
  told.push({ ...message, actor });
  const ms = (Number(message.at - killedAt) / 1e6).toFixed(2);
  const did = message.mode === 'exclusive' ? `cut ${message.cut} bytes off` : 'looks only, it holds shared';
  display.event(`${actor.label} got the lock ${ms} ms after, was told \`abandoned\`: ${did}`, 'green');
}

/** Rejects with the first thing that goes wrong with a participant. */
function watch(actor) {
  return new Promise((_, reject) => {
    actor.on('message', (message) => {
      if (message.type === 'told') noteTold(actor, message);
      if (message.type === 'failed') reject(new Error(`${actor.label}: ${message.message}`));
    });
    actor.on('exit', (code, signal) => {
      const expected = actor.fate === '' ? code === 0 && signal === null : signal === 'SIGKILL';
      if (!expected) reject(new Error(`${actor.label} ended with ${signal ?? `exit code ${code}`}`));
    });
  });
}

/** Killed between the halves of an entry: holds the lock, and leaves a torn file. */
async function killHolder(lock, victim) {
  const halfWritten = nextReport(victim, 'half-written');
  victim.send('tear');
  await halfWritten;
  display.event(`${victim.label} has written half an entry, and does not go on`, 'yellow');
  await until('the others queue', async () => (await lock.query()).pending.length > 0);
  await sleep(LOOK_MS);
  const exit = once(victim, 'exit');
  victim.fate = 'killed in a write';
  killedAt = process.hrtime.bigint();
  victim.kill();
  display.event(`${victim.label} gets SIGKILL, holding the lock`, 'red');
  await exit;
}

/** Killed in the queue: the lock is kept from it for so long. */
async function killWaiter(lock, victim) {
  const guard = await lock.exclusive({ timeout: PATIENCE_MS });
  try {
    await until(`${victim.label} waits`, () => waits(lock, victim));
    display.event(`${victim.label} waits for the lock (held back by main)`, 'yellow');
    await sleep(LOOK_MS);
    const exit = once(victim, 'exit');
    victim.fate = 'killed waiting';
    victim.kill();
    display.event(`${victim.label} gets SIGKILL, waiting`, 'red');
    await exit;
    await until('the queue is rid of it', async () => !(await waits(lock, victim)));
    display.event('the dead one has left the queue, the others go on', 'green');
  } finally {
    await guard.release();
  }
}

async function waits(lock, actor) {
  return (await lock.query()).pending.some((info) => actor.is(info));
}

async function play(lock) {
  const [, holder, waiter] = actors;
  const started = performance.now();
  const at = (ms) => sleep(Math.max(0, started + ms - performance.now()));
  await at(FIRST_DEATH_MS);
  await killHolder(lock, holder);
  await at(SECOND_DEATH_MS);
  await killWaiter(lock, waiter);
  const before = new Map(actors.map((actor) => [actor, actor.count]));
  await at(DURATION_MS);
  for (const actor of actors) {
    if (actor.fate === '' && actor.count === before.get(actor)) throw new Error(`${actor.label} got stuck`);
  }
  for (const actor of actors) actor.send('stop');
  await until('all have ended', () => actors.every((actor) => actor.ended));
}

async function finalAudit(lock) {
  const ledger = await Ledger.open(path);
  const { found, abandoned } = await lock.shared({ timeout: PATIENCE_MS }, async (guard) => ({
    found: await ledger.audit(),
    abandoned: guard.abandoned,
  }));
  await ledger.close();
  problems.push(...found.problems);
  if (found.torn > 0) problems.push(`the ledger ends with ${found.torn} bytes of a torn entry`);
  if (abandoned !== null) problems.push('nobody repaired what was abandoned');
  for (const { label, number, role, fate, count } of actors) {
    const written = found.byWriter.get(number) ?? 0;
    if (role === 'writer' && fate === '' && written !== count) {
      problems.push(`${label} wrote ${count} entries, the ledger has ${written}`);
    }
  }
  return found;
}

function checkTold(victim) {
  if (told.length === 0) problems.push('nobody was told `abandoned`');
  for (const { actor, abandoned, token } of told) {
    if (abandoned.pid !== victim.pid) problems.push(`${actor.label} was told of pid ${abandoned.pid}`);
    if (token < abandoned.token) problems.push(`${actor.label} has an older token than the dead one`);
  }
  const repairs = told.filter(({ mode, cut }) => mode === 'exclusive' && cut > 0);
  if (repairs.length !== 1) problems.push(`${repairs.length} repairs, there was one torn entry`);
  return repairs;
}

function summarise(found, repairs) {
  const audits = actors.reduce((sum, { role, count }) => sum + (role === 'auditor' ? count : 0), 0);
  const grants = told.map(({ at }) => Number(at - killedAt) / 1e6);
  const ok = problems.length === 0;
  const balances = `${found.balances.length} accounts, sum ${found.balances.reduce((sum, one) => sum + one)}`;
  const repaired = repairs.map(
    ({ actor, abandoned, cut }) => `, by ${actor.label}: ${cut} bytes of pid ${abandoned.pid}`,
  );
  const rows = [
    ['entries written', `${thousands(found.entries)}, numbered without gaps, fencing tokens ascending`],
    ['whole-file audits', thousands(audits)],
    ['balances', found.problems.length === 0 ? `consistent: ${balances}` : 'WRONG'],
    ['abandoned holds repaired', `${repairs.length}${repaired.join('')}`],
    ['kill to next grant', grants.length > 0 ? `${Math.min(...grants).toFixed(2)} ms` : 'never'],
  ];
  console.log('');
  for (const [what, value] of rows) console.log(`  ${what.padEnd(26)}${value}`);
  for (const problem of problems) console.log(display.paint('red', `  ✖ ${problem}`));
  console.log(display.paint(ok ? 'green' : 'red', ok ? '  ✔ ok' : '  ✖ failed'));
}

writeFileSync(path, '');
let lock;
let close = () => {};
try {
  const found = await placeOf(process.argv.slice(2), { name: 'ledger', namespace });
  leave = found.leave;
  const world = await enter(found.place);
  ({ lock, close } = world);
  display = new Display(process.stdout, DURATION_MS, world.snapshot, found.where);
  actors = startAll({ path, place: found.place });
  const failure = Promise.race(actors.map(watch));
  await Promise.race([failure, Promise.all(actors.map((actor) => nextReport(actor, 'ready')))]);
  display.begin(actors);
  await Promise.race([failure, play(lock)]);
  display.end();
  summarise(await finalAudit(lock), checkTold(actors[1]));
} catch (error) {
  display?.end();
  problems.push(error.message);
  console.error(display?.paint('red', error.stack) ?? error.message);
}
await close();
await leave();
process.exit(problems.length === 0 ? 0 : 1);
