// Each example runs as it stands, shows what it is about, and ends with 0: which none of them does if it went wrong.
import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testNamespace } from './support/namespace';
import { runProgram } from './support/program';

const FOLDER = join(__dirname, '../examples');

const SHOWN: Record<string, string[]> = {
  'cluster-workers.mjs': ['as the first', 'after the death of pid'],
  'fencing.mjs': ['"by the first" refused', 'the store has "by the second"'],
  'forked-children.mjs': ['4 children, 100 rounds each: 400'],
  'histograms.mjs': [
    'proclock.wait.duration (s): 1 shared, contended; 1 shared, contended, ERR_LOCK_TIMEOUT; 2 exclusive',
    'proclock.hold.duration (s): 1 shared; 2 exclusive',
  ],
  'no-overlap.mjs': [': running', ': skipped', 'the last run was killed'],
  'read-mostly-cache.mjs': ['version 3: wanted by 6 processes, built 1 time(s)'],
  'repair-abandoned.mjs': ['{ from: 70, to: 0 }', 'repaired: { from: 70, to: 30 }'],
  'single-flight.mjs': ['made 1 time(s) after the first one died', 'all of them have read it'],
  'transfer.mjs': ['= 3000'],
  'worker-threads.mjs': ['8000 changes', '0 readers saw'],
};

test('there are no others', () => {
  expect(readdirSync(FOLDER).sort()).toEqual(Object.keys(SHOWN));
});

test.each(Object.entries(SHOWN))('%s', async (example, shown) => {
  const { stdout, ...ended } = await runProgram(join(FOLDER, example), testNamespace(), tmpdir());
  expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
  for (const part of shown) expect(stdout).toContain(part);
});
