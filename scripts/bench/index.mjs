// npm run bench: measures, prints tables, writes build/bench.json. It judges nothing: the goals beside the figures are
// there to be looked at. Options: --quick (ends within a minute), and names of scenarios to run only those.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ensurePeers } from './peers.mjs';
import { callbacks, contended, local, machineLine, recovery, scale, uncontended } from './report.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const OUTPUT = resolve(here, '../../build/bench.json');

const SCENARIOS = {
  uncontended: { module: 'uncontended', options: {}, show: uncontended },
  callbacks: { module: 'uncontended', options: { callbacks: true }, show: callbacks },
  local: { module: 'local', options: {}, show: local },
  recovery: { module: 'recovery', options: {}, show: recovery },
  contended: { module: 'contended', options: {}, show: contended },
  scale: { module: 'scale', options: {}, show: scale },
};

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false } },
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
const result = { machine: machine(), quick: values.quick, scenarios: {} };
console.log(machineLine(result.machine));
for (const [name, { module, options, show }] of Object.entries(SCENARIOS)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  const figures = await runScenario(module, { ...options, quick: values.quick });
  result.scenarios[name] = figures;
  console.log(show(figures));
}
mkdirSync(dirname(OUTPUT), { recursive: true });
writeFileSync(OUTPUT, `${JSON.stringify(result, null, 2)}\n`);
console.log(`\nAll figures with their spread: ${OUTPUT}`);

async function runScenario(module, options) {
  const child = fork(resolve(here, 'scenario.mjs'), [module, JSON.stringify(options)]);
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
    node: process.version,
    kernel: release(),
    load: loadavg()[0],
    date: new Date().toISOString(),
  };
}
