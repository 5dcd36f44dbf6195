// Where proclock is to stand, beside where it stood in this run. Information: nothing fails because of it.
import { limitOf } from './report.mjs';
import { heading, number, table } from './table.mjs';

const atMost = (bar) => ({ text: `at most ${bar}`, isMet: (value) => value <= bar });
const atLeast = (bar) => ({ text: `at least ${bar}`, isMet: (value) => value >= bar });

/** [what, measured, bar] of the scenarios that were run. */
function* comparisons(scenarios) {
  const { uncontended, callbacks, requests, contended, handover, recovery, tasks, scale, waiting, start } =
    scenarios;
  if (uncontended) yield* uncontendedBars(uncontended);
  if (callbacks) {
    const mutex = callbacks['async-mutex runExclusive(fn)']?.median;
    yield [
      'exclusive(fn) / async-mutex runExclusive',
      callbacks['await exclusive(fn)'].median / mutex,
      atMost(1),
    ];
  }
  if (requests) {
    const { 'await locks.request(fn)': ours, 'await worker_threads.locks.request(fn)': node } =
      requests.figures;
    yield ['worker_threads.locks.request / locks.request', node?.median / ours.median, atLeast(5)];
  }
  if (contended) yield* contendedBars(contended);
  if (handover) {
    const { futex, wakeUp, sync, async } = handover;
    yield ['hand-over, sync / C futex', sync.median / futex.median, atMost(1.5)];
    const limit = futex.median + 2 * wakeUp.median;
    yield ['hand-over, async / (C futex + 2 loop wake-ups)', async.median / limit, atMost(1.3)];
  }
  for (const [kind, { toGrant }] of Object.entries(recovery?.cases ?? {})) {
    yield [`SIGKILL to grant, ms, p50: ${kind}`, toGrant.median, atMost(2)];
    yield [`SIGKILL to grant, ms, p99: ${kind}`, toGrant.p99, atMost(10)];
  }
  if (tasks) yield* tasksBars(tasks);
  if (scale) yield* scaleBars(scale);
  if (waiting) {
    yield [
      'CPU of 1,000 pending waits, ms per s',
      waiting[1000].cpuMsPerSecond - waiting[0].cpuMsPerSecond,
      atMost(0.1),
    ];
    yield [
      'event-loop delay p99, 1,000 waits / none',
      waiting[1000].delayUs.p99 / waiting[0].delayUs.p99,
      atMost(1.1),
    ];
  }
  if (start) {
    yield [
      'proclock run NAME true / node -e 0',
      start['proclock run NAME true'].median / start['node -e 0'].median,
      atMost(1.5),
    ];
  }
}

function* uncontendedBars(figures) {
  const flock = figures['fs-ext flockSync pair']?.median;
  for (const mode of ['exclusive', 'shared']) {
    const pair = figures[`${mode}Sync() + release()`].median;
    yield [`${mode}Sync pair / limit`, pair / limitOf(figures, mode), atMost(2.5)];
    yield [`flock pair / ${mode}Sync pair`, flock / pair, atLeast(10)];
  }
  const ours = figures['await exclusive() + release()'].median;
  yield [
    'await exclusive() / async-mutex acquire',
    ours / figures['async-mutex acquire + release']?.median,
    atMost(1),
  ];
  const downgraded = figures['exclusiveSync() + downgrade() + release()'].median;
  const downgrade = downgraded - figures['exclusiveSync() + release()'].median;
  const upgraded = figures['tryShared() + tryUpgrade() + downgrade() + release()'].median;
  const upgrade = upgraded - figures['tryShared() + release()'].median - downgrade;
  yield ['upgrade by the only reader / downgrade', upgrade / downgrade, atMost(10)];
  const native = figures['fs-native-extensions waitForLock + unlock']?.median;
  yield ['fs-native-extensions waitForLock / await exclusive()', native / ours, atLeast(100)];
}

function* contendedBars(rows) {
  const of = (kind, sectionUs, sharedPart) =>
    rows.find(
      (row) =>
        row.processes === 4 &&
        row.kind === kind &&
        row.sectionUs === sectionUs &&
        row.sharedPart === sharedPart,
    );
  const sync = of('proclock sync', 0, 0);
  const flock = of('flock (fs-ext) sync', 0, 0);
  yield [
    '4 processes, exclusive, empty: sync / flock',
    sync.perSecond.median / flock?.perSecond.median,
    atLeast(2),
  ];
  yield ['4 processes, exclusive, empty: longest wait, ms', sync.longestMs.median, atMost(20)];
  yield ['4 processes, exclusive, empty: least / most served', sync.leastToMost.median, atLeast(0.5)];
  const async = of('proclock async', 0, 0).perSecond.median;
  const native = of('fs-native-extensions async', 0, 0)?.perSecond.median;
  yield ['4 processes, exclusive, empty: async / fs-native-extensions', async / native, atLeast(10)];
  const shared = of('proclock sync', 10, 0.9).perSecond.median;
  const flockShared = of('flock (fs-ext) sync', 10, 0.9)?.perSecond.median;
  yield ['4 processes, 90 % shared, 10 us: sync / flock', shared / flockShared, atLeast(2)];
}

function* tasksBars(rows) {
  for (const count of [100, 1000]) {
    const of = (kind) =>
      rows.find(
        (row) => row.processes === 1 && row.section === 'empty' && row.tasks === count && row.kind === kind,
      )?.sectionNs.median;
    if (of('exclusive(fn)') === undefined) continue;
    const [mutex, lock] = [of('async-mutex runExclusive(fn)'), of('async-lock acquire(fn)')];
    const name = `${count} tasks:`;
    yield [`${name} exclusive(fn) / async-mutex`, of('exclusive(fn)') / mutex, atMost(1)];
    yield [`${name} await exclusive() / async-mutex`, of('await exclusive()') / mutex, atMost(1)];
    yield [`${name} exclusive(fn) / async-lock`, of('exclusive(fn)') / lock, atMost(2)];
    yield [`${name} shared(fn) / async-lock`, of('shared(fn)') / lock, atMost(1.5)];
    yield [`${name} locks.request(fn) / async-mutex`, of('locks.request(fn)') / mutex, atMost(1.5)];
  }
  const many = rows.find(
    (row) =>
      row.processes === 4 && row.section === 'empty' && row.tasks === 100 && row.kind === 'exclusive(fn)',
  );
  yield ['4 processes x 100 tasks: longest wait, ms', many.longestMs.median, atMost(100)];
  yield ['4 processes x 100 tasks: least / most served', many.leastToMost.median, atLeast(0.7)];
}

function* scaleBars({ names, holds, waiters, processes, namespaces }) {
  const count = (row) => row.count.toLocaleString('en-US');
  for (const [what, { rows }] of Object.entries({ names, holds, waiters, processes })) {
    const last = rows.at(-1);
    yield [`pair beside ${count(last)} ${what} / alone`, last.ratio, atMost(1.3)];
  }
  const growth = (rows, figure, from = 0) => figure(rows.at(-1)) / figure(rows[from]);
  yield [
    `opening a name, ${count(names.rows.at(-1))} / 1`,
    growth(names.rows, (row) => row.openNs.median),
    atMost(1.3),
  ];
  yield [
    `refused try, ${count(waiters.rows.at(-1))} waiters / 1`,
    growth(waiters.rows, (row) => row.refused.median),
    atMost(1.3),
  ];
  yield [
    `giving a wait up, ${count(waiters.rows.at(-1))} readers / ${count(waiters.rows[1])}`,
    growth(waiters.rows, (row) => row.givenUpNs, 1),
    atMost(1.3),
  ];
  yield [
    `beginning a wait, ${count(namespaces.rows.at(-1))} namespaces / ${count(namespaces.rows[0])}`,
    growth(namespaces.rows, (row) => row.beginWaitNs),
    atMost(1.3),
  ];
  yield ['bytes per open name, besides the name', names.rows.at(-1).bytesEach - names.nameBytes, atMost(256)];
  yield ['an idle namespace, KiB', names.emptyBytes / 1024, atMost(64)];
}

export function bars(scenarios) {
  const rows = [...comparisons(scenarios)].map(([what, value, bar]) => ({
    what,
    value,
    bar: bar.text,
    isMet: Number.isFinite(value) ? bar.isMet(value) : null,
  }));
  return rows;
}

export function showBars(rows) {
  const verdicts = { true: 'met', false: 'not met', null: 'not measured' };
  return (
    heading('Bars') +
    table(
      ['', 'measured', 'bar', ''],
      rows.map(({ what, value, bar, isMet }) => [
        what,
        isMet === null ? '' : number(value),
        bar,
        verdicts[isMet],
      ]),
    )
  );
}
