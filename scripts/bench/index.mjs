// npm run bench: measures, prints tables, writes build/bench.json. It judges nothing: the bars beside the figures are
// there to be looked at. Options: --quick (ends within a minute); --charts (draws docs/bench/*.svg); and names of
// scenarios to run only those. With --from FILE it measures nothing, and draws what that file says. With --engines it measures
// the locks beyond one machine instead.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { bars, showBars } from './bars.mjs';
import { ensurePeers, nodeWithLocks } from './peers.mjs';
import {
  callbacks,
  contended,
  handover,
  local,
  machineLine,
  recovery,
  requests,
  scale,
  start,
  stolenLine,
  tasks,
  uncontended,
  waiting,
} from './report.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const OUTPUT = resolve(here, '../../build/bench.json');
const CHARTS = resolve(here, '../../docs/bench');

const SCENARIOS = {
  uncontended: { module: 'uncontended', options: { forms: 'guards' }, show: uncontended },
  callbacks: { module: 'uncontended', options: { forms: 'callbacks' }, show: callbacks },
  requests: { module: 'requests', options: {}, show: requests },
  local: { module: 'local', options: {}, show: local },
  handover: { module: 'handover', options: {}, show: handover },
  recovery: { module: 'recovery', options: {}, show: recovery },
  contended: { module: 'contended', options: {}, show: contended },
  tasks: { module: 'tasks', options: {}, show: tasks },
  scale: { module: 'scale', options: {}, show: scale },
  waiting: { module: 'waiting', options: {}, show: waiting },
  start: { module: 'start', options: {}, show: start },
};

const { values, positionals } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    charts: { type: 'boolean', default: false },
    from: { type: 'string' },
    engines: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
const unknown = positionals.filter((name) => !(name in SCENARIOS));
if (unknown.length > 0) {
  console.error(`unknown: ${unknown.join(', ')}; there are ${Object.keys(SCENARIOS).join(', ')}`);
  process.exit(1);
}
if (process.platform !== 'linux') {
  console.error('bench: the native part supports Linux only');
  process.exit(1);
}

ensurePeers();
if (values.engines) {
  const { benchEngines } = await import('./engines/index.mjs');
  await benchEngines(values.quick);
  process.exit();
}
const result = values.from === undefined ? await measure() : JSON.parse(readFileSync(values.from, 'utf8'));
if (values.charts) {
  const { drawCharts } = await import('./charts.mjs');
  console.log(`\n${CHARTS}: ${drawCharts(result, CHARTS).join(', ')}`);
}
process.exit();

async function measure() {
  const measured = { machine: machine(), quick: values.quick, scenarios: {} };
  console.log(machineLine(measured.machine));
  const begin = processorTime();
  for (const [name, { module, options, show }] of Object.entries(SCENARIOS)) {
    if (positionals.length > 0 && !positionals.includes(name)) continue;
    const figures = await runScenario(module, { ...options, quick: values.quick });
    measured.scenarios[name] = figures;
    console.log(show(figures));
  }
  measured.bars = bars(measured.scenarios);
  measured.machine.loadAtTheEnd = loadavg()[0];
  measured.machine.stolen = stolenSince(begin);
  console.log(showBars(measured.bars));
  console.log(`\n${stolenLine(measured.machine)}`);
  mkdirSync(dirname(OUTPUT), { recursive: true });
  writeFileSync(OUTPUT, `${JSON.stringify(measured, null, 2)}\n`);
  console.log(`\nAll figures with their spread: ${OUTPUT}`);
  return measured;
}

async function runScenario(module, options) {
  const node = module === 'requests' ? nodeWithLocks(options.quick) : { path: process.execPath };
  const child = fork(
    resolve(here, 'scenario.mjs'),
    [module, JSON.stringify({ ...options, missing: node.missing })],
    {
      execPath: node.path,
    },
  );
  let figures = null;
  child.on('message', (message) => {
    figures = message.figures;
  });
  const [code, signal] = await once(child, 'exit');
  if (figures === null) throw new Error(`${module} ended with ${signal ?? code} and no result`);
  return figures;
}

function machine() {
  const [cpu] = cpus();
  return {
    cpu: cpu?.model ?? 'unknown',
    cores: cpus().length,
    node: process.versions.node,
    kernel: release(),
    load: loadavg()[0],
    date: new Date().toISOString(),
  };
}

/** Ticks since the boot in which somebody wanted to run, and those of them that the host took (proc_stat(5)). */
function processorTime() {
  const [, ...ticks] = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0].trim().split(/\s+/).map(Number);
  const [user, nice, system, , , irq, softirq, steal] = ticks;
  return { busy: user + nice + system + irq + softirq + steal, steal };
}

/** The part of the time in which we wanted to run, and something outside this machine ran instead. */
function stolenSince(begin) {
  const now = processorTime();
  return (now.steal - begin.steal) / Math.max(1, now.busy - begin.busy);
}
