// The figures as SVG, for the README: docs/bench/*.svg.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { init } from 'echarts';
import { mixName, sectionName } from './report.mjs';

const OURS = '#d9480f';
const PEERS = '#868e96';
const LIMIT = '#2b8a3e';
const SERIES = {
  'no lock at all': LIMIT,
  'proclock sync': OURS,
  'proclock sync, fair': '#f59f00',
  'proclock async': '#c2255c',
  'flock (fs-ext) sync': '#495057',
  'fs-native-extensions async': '#4dabf7',
  'proper-lockfile async': '#15aabf',
};
const TEXT = { fontFamily: 'sans-serif', color: '#212529' };
const WIDTH = 880;

/** Writes a chart for each scenario that there are figures of. */
export function drawCharts(result, folder) {
  const { scenarios, machine } = result;
  const busy =
    machine.load > machine.cores ? `; busy with other work as well, load ${machine.load.toFixed(1)}` : '';
  const stolen = machine.stolen > 0.05 ? `; ${(machine.stolen * 100).toFixed(0)} % stolen by the host` : '';
  const subtitle = `${machine.date.slice(0, 10)}, Node ${machine.node}, ${machine.cpu}, ${machine.cores} cores${busy}${stolen}`;
  mkdirSync(folder, { recursive: true });
  const drawn = [];
  for (const [name, { needs, draw }] of Object.entries(CHARTS)) {
    if (needs.some((scenario) => scenarios[scenario] === undefined)) continue;
    const { title, height, note, ...option } = draw(scenarios);
    const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
    const subtext = note === undefined ? subtitle : `${note}\n${subtitle}`;
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      textStyle: TEXT,
      title: [
        {
          text: title,
          subtext,
          left: 12,
          top: 8,
          textStyle: { fontSize: 16 },
          subtextStyle: { lineHeight: 15 },
        },
        ...(option.titles ?? []),
      ],
      ...option,
    });
    writeFileSync(join(folder, `${name}.svg`), `${chart.renderToSVGString()}\n`);
    chart.dispose();
    drawn.push(`${name}.svg`);
  }
  return drawn;
}

const CHARTS = {
  uncontended: { needs: ['uncontended', 'callbacks', 'requests'], draw: uncontended },
  contended: { needs: ['contended'], draw: contended },
  waits: { needs: ['contended'], draw: waits },
  'waits-p99': { needs: ['contended'], draw: waitsP99 },
  handover: { needs: ['handover'], draw: handover },
  recovery: { needs: ['recovery'], draw: recovery },
  scale: { needs: ['scale'], draw: scale },
};

function colorOf(name) {
  if (/N-API|in C|futex|limit/.test(name)) return LIMIT;
  return /fs-ext|fs-native|async-mutex|proper-lockfile|worker_threads/.test(name) ? PEERS : OURS;
}

/** Horizontal bars, the first one on top. */
function bars(values, { name, type = 'value', digits = 1 }) {
  const entries = Object.entries(values);
  const format = (value) =>
    value.toLocaleString('en-US', { maximumFractionDigits: value < 100 ? digits : 0 });
  return {
    height: 130 + entries.length * 24,
    grid: { left: 360, right: 90, top: 84, bottom: 44 },
    xAxis: { type, name, nameLocation: 'middle', nameGap: 26, ...(type === 'log' ? { min: 1 } : {}) },
    yAxis: {
      type: 'category',
      inverse: true,
      data: entries.map(([label]) => label),
      axisTick: { show: false },
    },
    series: [
      {
        type: 'bar',
        barWidth: 15,
        label: { show: true, position: 'right', formatter: ({ value }) => format(value) },
        data: entries.map(([label, value]) => ({ value, itemStyle: { color: colorOf(label) } })),
      },
    ],
  };
}

function uncontended({ uncontended: guards, callbacks, requests }) {
  const pick = (figures, pattern) =>
    Object.entries(figures)
      .filter(([name]) => pattern.test(name))
      .map(([name, { median }]) => [name, median]);
  const limit = guards['two empty N-API calls'].median + guards['raw exclusive pair in C'].median;
  const values = Object.fromEntries([
    ['the limit: two empty N-API calls + raw pair in C', limit],
    ...pick(guards, /release|fs-|proper/),
    ...pick(callbacks, /await exclusive\(fn|runExclusive\(fn/),
    ...pick(requests.figures, /request\(fn/),
  ]);
  return {
    title: 'One uncontended acquire and release, nanoseconds (log scale)',
    note: `less is better; *.request measured on Node ${requests.node}`,
    ...bars(values, { name: 'ns', type: 'log', digits: 0 }),
  };
}

/** A panel for each length of section and mix of modes: how many sections per second, by number of processes. */
function contended({ contended: rows }) {
  return panels(rows, {
    title: 'Critical sections per second, by number of processes that want the lock (log scale)',
    note: 'more is better',
    value: (row) => row.perSecond.median,
  });
}

function waits({ contended: rows }) {
  return panels(rows.filter(waitsAtAll), {
    title: 'Longest wait for the lock, milliseconds, by number of processes (log scale)',
    note: 'less is better; the median of several runs',
    value: (row) => row.longestMs.median,
  });
}

function waitsP99({ contended: rows }) {
  return panels(rows.filter(waitsAtAll), {
    title: 'Wait for the lock, 99th percentile in microseconds, by number of processes (log scale)',
    note: 'less is better',
    value: (row) => row.waitUs.p99,
  });
}

function waitsAtAll({ kind }) {
  return kind !== 'no lock at all';
}

function panels(rows, { title, note, value }) {
  const kinds = [...new Set(rows.map((row) => row.kind))];
  const processes = [...new Set(rows.map((row) => row.processes))];
  const sections = [...new Set(rows.map((row) => row.sectionUs))];
  const mixes = [...new Set(rows.map((row) => row.sharedPart))];
  const cells = mixes.flatMap((sharedPart, y) =>
    sections.map((sectionUs, x) => ({ sharedPart, sectionUs, x, y })),
  );
  const at = ({ x, y }) => ({ left: 62 + x * 276, top: 168 + y * 220, width: 226, height: 150 });
  return {
    title,
    note,
    height: 168 + mixes.length * 220,
    // One for each kind, each at a place of its own: how wide a text is depends on the fonts of whoever looks at it.
    legend: kinds.map((kind, i) => ({
      left: 56 + (i % 4) * 200,
      top: 86 + Math.floor(i / 4) * 20,
      itemWidth: 18,
      textStyle: { fontSize: 11 },
      data: [kind],
    })),
    titles: cells.map((cell) => ({
      text: `${sectionName(cell.sectionUs)}, ${mixName(cell.sharedPart)}`,
      left: at(cell).left,
      top: at(cell).top - 26,
      textStyle: { fontSize: 12, fontWeight: 'normal' },
    })),
    grid: cells.map(at),
    xAxis: cells.map((_, gridIndex) => ({ gridIndex, type: 'category', data: processes.map(String) })),
    yAxis: cells.map((_, gridIndex) => ({ gridIndex, type: 'log', axisLabel: { formatter: short } })),
    series: cells.flatMap((cell, i) =>
      kinds.map((kind) => ({
        name: kind,
        type: 'line',
        xAxisIndex: i,
        yAxisIndex: i,
        color: SERIES[kind],
        lineStyle: { type: kind.startsWith('proclock') ? 'solid' : 'dashed' },
        data: processes.map((count) => {
          const row = rows.find(
            (other) =>
              other.kind === kind &&
              other.processes === count &&
              other.sectionUs === cell.sectionUs &&
              other.sharedPart === cell.sharedPart,
          );
          return row === undefined ? null : value(row);
        }),
      })),
    ),
  };
}

function short(value) {
  if (value >= 1e6) return `${value / 1e6}M`;
  return value >= 1000 ? `${value / 1000}k` : String(value);
}

function handover({ handover: { futex, wakeUp, sync, async } }) {
  return {
    title: 'Hand-over between two processes, there and back, microseconds',
    note: 'less is better',
    ...bars(
      {
        'two C programs and a futex': futex.median / 1000,
        'proclock sync': sync.median / 1000,
        'futex in C + two event-loop wake-ups': (futex.median + 2 * wakeUp.median) / 1000,
        'proclock async': async.median / 1000,
      },
      { name: 'us' },
    ),
  };
}

function recovery({ recovery: { cases } }) {
  const names = Object.keys(cases);
  const bar = (name, color, value) => ({
    name,
    type: 'bar',
    color,
    barWidth: 15,
    label: { show: true, position: 'right', formatter: (point) => point.value.toFixed(1) },
    data: names.map((kind) => value(cases[kind])),
  });
  return {
    title: 'From the SIGKILL of a holder to the grant to a waiter, milliseconds',
    note: 'less is better; the kernel takes the dead process apart first',
    height: 150 + names.length * 84,
    legend: { top: 76, itemGap: 28 },
    grid: { left: 330, right: 60, top: 110, bottom: 44 },
    xAxis: { type: 'value', name: 'ms', nameLocation: 'middle', nameGap: 26 },
    yAxis: { type: 'category', inverse: true, data: names, axisTick: { show: false } },
    series: [
      bar('end of the process, p50', LIMIT, ({ toExit }) => toExit.median),
      bar('grant, p50', OURS, ({ toGrant }) => toGrant.median),
      bar('grant, p99', '#f59f00', ({ toGrant }) => toGrant.p99),
    ],
  };
}

function scale({ scale: figures }) {
  const { names, holds, waiters, processes } = figures;
  const lines = {
    'names open': names,
    'shared guards open': holds,
    'waits pending': waiters,
    'processes attached': processes,
  };
  return {
    title: 'Cost of a pair beside what else is in the namespace, relative to an empty one',
    note: '1 is best',
    height: 400,
    legend: { top: 76, itemGap: 28 },
    grid: { left: 62, right: 30, top: 110, bottom: 50 },
    xAxis: {
      type: 'log',
      name: 'how many',
      nameLocation: 'middle',
      nameGap: 28,
      axisLabel: { formatter: short },
    },
    yAxis: { type: 'value', min: 0, max: (range) => Math.max(2, Math.ceil(range.max)) },
    series: Object.entries(lines).map(([name, { rows }]) => ({
      name,
      type: 'line',
      data: rows.map(({ count, ratio }) => [count, ratio]),
    })),
  };
}
