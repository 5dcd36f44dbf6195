// The port to macOS, tested: `node scripts/portable.mjs [--long] [files for jest]`. On a Mac, those tests of jest that are not
// Linux's own. And where there is none:
//
// PROCLOCK_INSTRUMENT=portable compiles native/platform/darwin for Linux, with a shim that plays the other kernel (test/darwin/). On
// that build run the native tests, the simulation among them, and those of jest that the platform has a part in; --long: all of them.
// What is Linux's own is left out, with the reason. The last line on stdout is "N passed, N failed".
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(resolve(dirname(fileURLToPath(import.meta.url)), '..'));

/** Of jest: what is Linux's own. */
const LEFT_OUT = {
  'clocks.test.ts': 'time namespaces are of Linux',
  'documents.test.ts': 'it runs nothing',
  'full.test.ts':
    'a small tmpfs stands for a full disk; here zeros are written, which native/darwin_test.cc and shortage_test.cc test',
  'local.test.ts': 'no native code is in it',
  'pid-namespaces.test.ts': 'PID namespaces are of Linux',
  'refused-calls.test.ts': 'the calls that it refuses are of Linux',
  'troubleshooting.test.ts': 'the page quotes what is said on Linux',
  'unsupported.test.ts':
    'its packages have no binary, and get this one all the same, through the environment',
};

/** Those in which the platform has most of a part. --long: all but what is left out. */
const SHORT = [
  'crash-points',
  'death',
  'descriptor',
  'engines/shm',
  'namespaces',
  'segment',
  'storm',
  'workers',
].map((name) => `test/${name}.test.ts`);

const words = process.argv.slice(2).filter((word) => word !== '--long');
const long = process.argv.includes('--long');
const all = readdirSync('test')
  .filter((file) => file.endsWith('.test.ts') && !(file in LEFT_OUT))
  .map((file) => `test/${file}`);
const files = words.length > 0 ? words : long ? [...all, 'test/engines/shm.test.ts'] : SHORT;

// The native tests, and the crash points, are written for Linux.
const onMac = process.platform === 'darwin';
if (!onMac) {
  process.env.PROCLOCK_INSTRUMENT = 'portable';
  if (!long) Object.assign(process.env, { PROCLOCK_DEATH_STRIDE: '5', PROCLOCK_SIM_SCHEDULES: '20000' });
}
execute(['scripts/ensure.mjs', 'native', ...(onMac ? [] : ['native-tests', 'crash-points']), 'dist']);
for (const [file, reason] of Object.entries(LEFT_OUT)) console.log(`left out: ${file}: ${reason}`);
execute(['scripts/test.mjs', onMac || words.length > 0 ? 'jest' : 'native,jest', ...files]);

function execute(args) {
  const { status, signal } = spawnSync(process.execPath, args, { stdio: 'inherit' });
  if (status !== 0) process.exit(signal ? 1 : status);
}
