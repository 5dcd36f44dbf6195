// Figures as tables for people. Each function takes what a scenario returned.

export function machineLine({ cpu, cores, node, kernel, load }) {
  return `${cpu}, ${cores} cores, Linux ${kernel}, Node ${node}, load ${load.toFixed(1)} at the start`;
}

export function uncontended(figures) {
  const flock = figures['fs-ext flockSync pair']?.median;
  const mutex = figures['async-mutex acquire + release']?.median;
  return [
    calls('Uncontended, guard forms', figures),
    '',
    ...goals([
      ...['exclusive', 'shared'].flatMap((mode) => {
        const pair = figures[`${mode}Sync() + release()`].median;
        return [
          [`${mode}Sync pair / limit`, pair / limitOf(figures, mode), 'at most 4'],
          [`flock pair / ${mode}Sync pair`, flock / pair, 'at least 6'],
        ];
      }),
      [
        'await exclusive() / async-mutex',
        figures['await exclusive() + release()'].median / mutex,
        'at most 1',
      ],
    ]),
  ].join('\n');
}

export function callbacks(figures) {
  const ours = figures['await exclusive(fn)'].median;
  const mutex = figures['async-mutex runExclusive(fn)']?.median;
  return [
    calls('Uncontended, callback forms (within an AsyncLocalStorage)', figures),
    '',
    ...goals([['exclusive(fn) / async-mutex runExclusive', ours / mutex, 'at most 1']]),
  ].join('\n');
}

export function local(figures) {
  const rows = Object.entries(figures).map(([name, figure]) => [
    name,
    ns(figure.median),
    `${ns(figure.low)} - ${ns(figure.high)}`,
    ns(figure.min),
  ]);
  const read = (of) => figures[`read: ${of}`].median;
  return [
    heading('Local') + table(['', 'ns, median', 'quartiles', 'least'], rows),
    '',
    ...goals([
      ['read of a Local / of a plain object', read('Local') / read('plain object'), 'a few'],
      [
        'read of a Local / of a proxy without traps',
        read('Local') / read('proxy without traps'),
        'at most 1.5',
      ],
    ]),
  ].join('\n');
}

/** Two empty calls and the raw pair: what cannot be beaten. */
function limitOf(figures, mode) {
  return figures['two empty N-API calls'].median + figures[`raw ${mode} pair in C`].median;
}

function calls(title, figures) {
  const limit = limitOf(figures, 'exclusive');
  const rows = Object.entries(figures).map(([name, figure]) => [
    name,
    ns(figure.median),
    `${ns(figure.low)} - ${ns(figure.high)}`,
    ns(figure.min),
    (figure.median / limit).toFixed(2),
  ]);
  return heading(title) + table(['', 'ns, median', 'quartiles', 'least', 'x limit'], rows);
}

export function recovery(figures) {
  const rows = Object.entries(figures).flatMap(([kind, { toGrant, toExit, afterExit, wrong }]) => [
    [`${kind}: SIGKILL to grant`, ...msRow(toGrant), 'p50 at most 10, p99 at most 50'],
    ['  SIGKILL to end of process', ...msRow(toExit), 'the kernel'],
    [
      '  end of process to grant',
      ...msRow(afterExit),
      wrong > 0 ? `${wrong} WITHOUT abandoned or token` : '',
    ],
  ]);
  const title = 'Recovery: an exclusive holder is killed';
  return heading(title) + table(['', 'ms, median', 'p99', 'most', 'kills', 'goal'], rows);
}

function msRow({ median, p99, max, count }) {
  return [median.toFixed(2), p99.toFixed(2), max.toFixed(2), String(count)];
}

export function contended(figures) {
  const rows = Object.entries(figures).map(([name, { perSecond, longestMs, leastToMost }]) => [
    name,
    ns(perSecond.median),
    `${ns(perSecond.low)} - ${ns(perSecond.high)}`,
    longestMs.median.toFixed(1),
    longestMs.max.toFixed(1),
    leastToMost.median.toFixed(2),
  ]);
  return (
    heading('Contended: one exclusive lock, nothing done while it is held') +
    table(
      ['processes', 'pairs/s, median', 'quartiles', 'longest wait, ms', 'of all rounds', 'least/most served'],
      rows,
    )
  );
}

export function scale({ names, waiters, processes }) {
  const { emptyNamespaceBytes, closeNs, ...byCount } = names;
  return [
    heading('Scale: names open') +
      table(
        ['names', 'pair, ns', 'alone, ns', 'ratio', 'open one, ns', 'bytes per name'],
        Object.entries(byCount).map(([count, row]) => [
          count,
          ...pairRow(row),
          ns(row.openNs.median),
          ns(row.bytesPerName),
        ]),
      ),
    `an empty namespace: ${ns(emptyNamespaceBytes / 1024)} KiB; closing a name: ${ns(closeNs)} ns`,
    heading('Scale: waits pending on another lock of the namespace') +
      table(
        ['waits', 'pair, ns', 'alone, ns', 'ratio', 'refused try, ns', 'begin a wait, ns', 'serve one, ns'],
        Object.entries(waiters).map(([count, row]) => [
          count,
          ...pairRow(row),
          ns(row.refused.median),
          ns(row.beginWaitNs),
          ns(row.servedNs),
        ]),
      ),
    heading('Scale: processes attached') +
      table(
        ['processes', 'pair, ns', 'alone, ns', 'ratio'],
        Object.entries(processes).map(([count, row]) => [count, ...pairRow(row)]),
      ),
  ].join('\n');
}

function pairRow({ pair, control, ratio }) {
  return [ns(pair.median), ns(control.median), ratio.toFixed(2)];
}

function goals(lines) {
  const known = lines.filter(([, value]) => Number.isFinite(value));
  const width = Math.max(...known.map(([name]) => name.length));
  return known.map(
    ([name, value, goal]) => `${name.padEnd(width)}  ${value.toFixed(2).padStart(6)}   goal: ${goal}`,
  );
}

function heading(title) {
  return `\n${title}\n`;
}

/** The first column to the left, figures to the right. */
function table(header, rows) {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** With thousands separated, and one digit after the point where that says something. */
function ns(value) {
  const digits = Math.abs(value) < 1000 ? 1 : 0;
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
