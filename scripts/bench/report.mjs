// Figures as tables for people. Each function takes what a scenario returned.
import { heading, number, spread, table } from './table.mjs';

export function machineLine({ cpu, cores, node, kernel, load }) {
  return `${cpu}, ${cores} cores, Linux ${kernel}, Node ${node}, load ${load.toFixed(1)} at the start`;
}

/** A figure that was taken while the machine did something else is worth less. */
export function stolenLine({ stolen }) {
  return `${(stolen * 100).toFixed(0)} % of the processor time was stolen by other machines of the host.`;
}

export function uncontended(figures) {
  return calls('Uncontended, guard forms', figures);
}

export function callbacks(figures) {
  return calls('Uncontended, callback forms (within an AsyncLocalStorage)', figures);
}

export function requests({ node, figures, missing }) {
  const title = `Uncontended, Web Locks requests (Node ${node})`;
  return calls(title, figures) + (missing === null ? '' : `\nwithout worker_threads.locks: ${missing}`);
}

/** Two empty calls and the raw pair: what cannot be beaten. */
export function limitOf(figures, mode) {
  return figures['two empty N-API calls'].median + figures[`raw ${mode} pair in C`].median;
}

function calls(title, figures) {
  const limit = limitOf(figures, 'exclusive');
  const rows = Object.entries(figures).map(([name, figure]) => [
    name,
    number(figure.median),
    spread(figure),
    number(figure.min),
    number(figure.median / limit),
  ]);
  return heading(title) + table(['', 'ns, median', 'quartiles', 'least', 'x limit'], rows);
}

export function local(figures) {
  return heading('Local') + durations('ns', figures);
}

export function start(figures) {
  return heading('From the start of a program to its end') + durations('ms', figures);
}

function durations(unit, figures) {
  const rows = Object.entries(figures).map(([name, figure]) => [
    name,
    number(figure.median),
    spread(figure),
    number(figure.min),
  ]);
  return table(['', `${unit}, median`, 'quartiles', 'least'], rows);
}

export function handover({ futex, wakeUp, sync, async }) {
  const rows = [
    ['futex, in C', futex],
    ['one wake-up of an event loop', wakeUp],
    ['proclock sync', sync],
    ['proclock async', async],
  ].map(([name, figure]) => [name, ...[figure.median, figure.low, figure.high, figure.min].map(us)]);
  return (
    heading('Hand-over between two processes, there and back') +
    table(['', 'us, median', 'low quartile', 'high quartile', 'least'], rows)
  );
}

export function recovery({ cases, missing }) {
  const rows = Object.entries(cases).flatMap(([kind, { toGrant, toExit, afterExit, wrong }]) => [
    [`${kind}: SIGKILL to grant`, ...msRow(toGrant)],
    ['  SIGKILL to end of process (the kernel)', ...msRow(toExit)],
    ['  end of process to grant', ...msRow(afterExit)],
    ...(wrong > 0 ? [[`  ${wrong} WITHOUT abandoned or token`]] : []),
  ]);
  return [
    heading('Recovery: an exclusive holder is killed') +
      table(['', 'ms, median', 'p99', 'most', 'kills'], rows),
    ...Object.entries(missing).map(([kind, reason]) => `not measured: ${kind}: ${reason}`),
  ].join('\n');
}

function msRow({ median, p99, max, count }) {
  return [number(median), number(p99), number(max), String(count)];
}

export function contended(rows) {
  const groups = new Map();
  for (const row of rows) {
    const group = `${sectionName(row.sectionUs)}, ${mixName(row.sharedPart)}`;
    groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  return [...groups]
    .map(
      ([group, members]) =>
        heading(`Contended: ${group}`) +
        table(
          [
            'processes',
            'per s, median',
            'wait p50, us',
            'p99, us',
            'longest, ms',
            'of all rounds',
            'least/most',
          ],
          members.map(({ processes, kind, perSecond, waitUs, longestMs, leastToMost }) => [
            `${processes} x ${kind}`,
            number(perSecond.median),
            number(waitUs.p50),
            number(waitUs.p99),
            number(longestMs.median),
            number(longestMs.max),
            number(leastToMost.median),
          ]),
        ),
    )
    .join('\n');
}

export function tasks(rows) {
  return [...new Set(rows.map((row) => row.section))]
    .map(
      (section) =>
        heading(`Many tasks on one lock: ${section} sections`) +
        table(
          ['processes x tasks', 'ns a section', 'wait p50, us', 'p99, us', 'longest, ms', 'least/most'],
          rows
            .filter((row) => row.section === section)
            .map(({ processes, tasks: each, kind, sectionNs, waitUs, longestMs, leastToMost }) => [
              `${processes} x ${each} ${kind}`,
              number(sectionNs.median),
              number(waitUs.p50),
              number(waitUs.p99),
              number(longestMs.median),
              number(leastToMost.median),
            ]),
        ),
    )
    .join('\n');
}

export function sectionName(us) {
  return us === 0 ? 'empty section' : us < 1000 ? `${us} us sections` : `${us / 1000} ms sections`;
}

export function mixName(sharedPart) {
  return sharedPart === 0 ? 'all exclusive' : `${sharedPart * 100} % shared`;
}

export function scale({ names, holds, waiters, processes, namespaces, opening }) {
  return [
    scaleTable('names open', names.rows, {
      'open one, ns': (row) => row.openNs.median,
      'bytes each': (row) => row.bytesEach,
    }),
    `an empty namespace: ${number(names.emptyBytes / 1024)} KiB; closing a name: ${number(names.closeNs)} ns`,
    scaleTable('shared guards of another lock', holds.rows, {
      'one more, ns': (row) => row.oneMore.median,
      'bytes each': (row) => row.bytesEach,
    }),
    `releasing one: ${number(holds.releaseNs)} ns`,
    scaleTable('waits pending on another lock', waiters.rows, {
      'refused try, ns': (row) => row.refused.median,
      'begin a wait, ns': (row) => row.beginWaitNs,
      'serve one, ns': (row) => row.servedNs,
      'give one up, ns': (row) => row.givenUpNs,
    }),
    scaleTable('processes attached', processes.rows, { 'bytes each': (row) => row.bytesEach }),
    heading('Scale: namespaces with a wait each') +
      table(
        ['namespaces', 'begin a wait, ns', 'serve one, ns'],
        namespaces.rows.map(({ count, beginWaitNs, servedNs }) => [
          count.toLocaleString('en-US'),
          ...[beginWaitNs, servedNs].map(number),
        ]),
      ),
    heading('Opening a namespace') +
      table(
        ['', 'us, median', 'p99'],
        [
          ['one that did not exist', us(opening.createNs.median), us(opening.createNs.p99)],
          ['one that this process was not in', us(opening.enterNs.median), us(opening.enterNs.p99)],
        ],
      ),
  ].join('\n');
}

function scaleTable(what, rows, more) {
  return (
    heading(`Scale: ${what}`) +
    table(
      [what, 'pair, ns', 'alone, ns', 'ratio', ...Object.keys(more)],
      rows.map((row) => [
        row.count.toLocaleString('en-US'),
        number(row.pair.median),
        number(row.control.median),
        number(row.ratio),
        ...Object.values(more).map((value) => number(value(row))),
      ]),
    )
  );
}

export function waiting(rows) {
  return (
    heading('Waits that are pending, and nothing else') +
    table(
      ['waits', 'CPU, ms per s', 'event-loop delay p50, us', 'p99, us', 'most, us'],
      Object.entries(rows).map(([count, { cpuMsPerSecond, delayUs }]) => [
        count,
        ...[cpuMsPerSecond, delayUs.p50, delayUs.p99, delayUs.max].map(number),
      ]),
    )
  );
}

function us(ns) {
  return number(ns / 1000);
}
