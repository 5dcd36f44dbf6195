// npm run bench -- --engines: locks beyond one machine, beside what their users would do without proclock, over the same server.
// What is compared is measured in turns, in one run. It judges nothing: the bars are there to be looked at.
import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Actor } from '../actor.mjs';
import { nowNs, sleep, summarize } from '../measure.mjs';
import { heading, number, spread, table } from '../table.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const OUTPUT = resolve(here, '../../../build/bench-engines.json');
const CHILD = resolve(here, 'child.mjs');
const { SharedLock } = createRequire(import.meta.url)('../../../dist/remote');

/** A module of this folder each. */
const ENGINES = ['postgres', 'etcd'];
const TTL_MS = 10_000;
const PROCESSES = 4;

export async function benchEngines(quick) {
  const rounds = quick ? 20 : 200;
  const result = {};
  for (const module of ENGINES) {
    const engine = await import(`./${module}.mjs`);
    const server = await engine.start();
    if (server === undefined) {
      console.log(`\n${module}: left out, there is no server, and none can be had`);
      continue;
    }
    try {
      console.log(heading(server.name));
      result[module] = {
        name: server.name,
        pair: await pair(engine, server.target, rounds),
        handOver: await handOver(module, engine, server.target, rounds),
        processes: await processes(module, engine, server.target, quick ? 300 : 2000),
        waits: await waits(
          engine,
          server.target,
          Math.min(quick ? 1000 : 10_000, engine.waitsMax ?? Infinity),
        ),
        kill: await kill(module, engine, server.target, quick ? 3 : 30),
      };
      console.log(show(result[module]));
    } finally {
      await server.stop();
    }
  }
  mkdirSync(dirname(OUTPUT), { recursive: true });
  writeFileSync(OUTPUT, `${JSON.stringify(result, null, 2)}\n`);
  console.log(`\nAll figures with their spread: ${OUTPUT}`);
}

const startChild = async (module, target, name, ttl = TTL_MS) => {
  const child = await Actor.start([], CHILD);
  await child.call('open', module, target, { ttl }, name);
  return child;
};

/** Microseconds for an acquire and a release that nobody is in the way of. */
async function pair(engine, target, rounds) {
  const space = await engine.open(target, { ttl: TTL_MS });
  const lock = new SharedLock('pair', { space });
  const forms = {
    'proclock, exclusive': async () => (await lock.exclusive()).release(),
    'proclock, shared': async () => (await lock.shared()).release(),
  };
  const open = [];
  for (const [name, make] of Object.entries({ ...engine.bare, ...engine.peers })) {
    const peer = await make(target);
    open.push(peer);
    forms[name] = async () => {
      await peer.acquire();
      await peer.release();
    };
  }
  const values = new Map(Object.keys(forms).map((name) => [name, []]));
  for (let round = -5; round < rounds; round++) {
    for (const [name, form] of Object.entries(forms)) {
      const began = nowNs();
      for (let n = 0; n < 10; n++) await form();
      if (round >= 0) values.get(name).push((nowNs() - began) / 10e3);
    }
  }
  for (const peer of open) await peer.close();
  await space.close();
  return Object.fromEntries([...values].map(([name, list]) => [name, summarize(list)]));
}

/** Microseconds from the call of release to the grant in another process, and those of the engine's own message. */
async function handOver(module, engine, target, rounds) {
  const space = await engine.open(target, { ttl: TTL_MS });
  const lock = new SharedLock('hand-over', { space });
  const child = await startChild(module, target, 'hand-over');
  await child.call('listen');
  const sender = await engine.hop.sender(target);
  const values = { proclock: [], [engine.hop.name]: [] };
  for (let round = 0; round < rounds; round++) {
    const guard = await lock.exclusive();
    await child.call('wait');
    while ((await lock.query()).pending.length === 0);
    const released = nowNs();
    await guard.release();
    values.proclock.push(((await child.call('granted')) - released) / 1e3);
    await child.call('release');
    await child.call('expect');
    const sent = nowNs();
    await sender.send();
    values[engine.hop.name].push(((await child.call('granted')) - sent) / 1e3);
  }
  await sender.close();
  await child.end();
  await space.close();
  return Object.fromEntries(Object.entries(values).map(([name, list]) => [name, summarize(list)]));
}

/** Pairs a second of several processes that want one lock. */
async function processes(module, engine, target, ms) {
  const children = await Promise.all(
    Array.from({ length: PROCESSES }, () => startChild(module, target, 'contended')),
  );
  const rates = {};
  for (const peer of [null, ...Object.keys(engine.peers)]) {
    const counts = await Promise.all(children.map((child) => child.call('pairs', peer, ms)));
    const sum = counts.reduce((total, count) => total + count, 0);
    rates[peer ?? 'proclock'] = { perSecond: (sum / ms) * 1000, least: Math.min(...counts) / sum };
  }
  for (const child of children) await child.end();
  return rates;
}

/** Many waits on one connection: how long until all are queued, and how many a second are granted and released. */
async function waits(engine, target, count) {
  const figures = {};
  for (const [what, nameOf] of [
    ['of as many names', (index) => `one of many ${index}`],
    ['of one name', () => 'one of one'],
  ]) {
    const holder = await engine.open(target, { ttl: TTL_MS });
    const space = await engine.open(target, { ttl: TTL_MS });
    const names = [...new Set(Array.from({ length: count }, (_, index) => nameOf(index)))];
    const guards = await Promise.all(
      names.map((name) => new SharedLock(name, { space: holder }).exclusive()),
    );
    const began = performance.now();
    const drained = Promise.all(
      Array.from({ length: count }, async (_, index) => {
        const guard = await new SharedLock(nameOf(index), { space }).exclusive();
        await guard.release();
      }),
    );
    // Questions are answered in their order.
    while ((await space.query()).pending.length < count);
    const told = await engine.told?.count(target);
    const queued = performance.now();
    const released = Promise.all(guards.map((guard) => guard.release()));
    await drained;
    await released;
    const drainedMs = performance.now() - queued;
    figures[what] = {
      count,
      queuedMs: queued - began,
      perSecond: count / (drainedMs / 1000),
      ...(told === undefined ? {} : { [engine.told.name]: (await engine.told.count(target)) - told }),
    };
    await space.close();
    await holder.close();
  }
  return figures;
}

/** Milliseconds from a kill -9 of the holder to the next grant. */
async function kill(module, engine, target, rounds) {
  const space = await engine.open(target, { ttl: TTL_MS });
  const lock = new SharedLock('killed', { space });
  const values = [];
  for (let round = 0; round < rounds; round++) {
    const child = await startChild(module, target, 'killed', engine.ttlMs);
    await child.call('hold');
    const waiting = lock.exclusive();
    while ((await lock.query()).pending.length === 0);
    // At any moment between two looks.
    await sleep(Math.random() * 300);
    const killed = nowNs();
    const ended = child.end();
    const guard = await waiting;
    values.push((nowNs() - killed) / 1e6);
    await ended;
    await guard.release();
  }
  await space.close();
  return summarize(values);
}

function show({ pair, handOver, processes, waits, kill }) {
  const ratios = (figures, peer, unit) =>
    table(
      [unit, 'median', 'quartiles', `x ${peer}`],
      Object.entries(figures).map(([name, figure]) => [
        name,
        number(figure.median),
        spread(figure),
        number(figure.median / figures[peer].median),
      ]),
    );
  const bare = Object.keys(pair)[2];
  const message = Object.keys(handOver)[1];
  const [, , , ...told] = Object.keys(Object.values(waits)[0]);
  return [
    ratios(pair, bare, 'pair, us'),
    ratios(handOver, message, 'hand-over, us'),
    table(
      [`${PROCESSES} processes, one lock`, 'pairs/s', 'least share'],
      Object.entries(processes).map(([name, { perSecond, least }]) => [
        name,
        number(perSecond),
        `${number(least * 100)} %`,
      ]),
    ),
    table(
      ['waits on one connection', 'queued, ms', 'drained, 1/s', ...told],
      Object.entries(waits).map(([name, { count, queuedMs, perSecond, ...counted }]) => [
        `${number(count)} ${name}`,
        ...[queuedMs, perSecond, ...Object.values(counted)].map(number),
      ]),
    ),
    table(['kill to grant, ms', 'p50', 'p99'], [['proclock', number(kill.median), number(kill.p99)]]),
  ].join('\n\n');
}
