// Tests under a sanitizer: `node scripts/sanitize.mjs address|thread [arguments for jest]`.
//
//   address  AddressSanitizer and UBSan: the native tests, then jest with an addon that is built so, in every process.
//            Of the tests that simulate the machine (sim_*), the exploration alone, and fewer schedules
//   thread   ThreadSanitizer: the native tests in which threads of one process meet
import { execFileSync, spawnSync } from 'node:child_process';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(resolve(dirname(fileURLToPath(import.meta.url)), '..'));

const RUNS = {
  address: {
    parts: ['native', 'native-tests', 'dist'],
    suites: 'native,jest',
    // Who dies by a signal, or exits without a word, leaks; most tests do that on purpose, and so does Node itself.
    env: () => ({
      ASAN_OPTIONS: 'detect_leaks=0',
      UBSAN_OPTIONS: 'print_stacktrace=1',
      PROCLOCK_SIM_SCHEDULES: '5000',
      // Node is not built with it, and it has to be there before everything else.
      LD_PRELOAD: libraryPath('libasan.so'),
    }),
    // Without arguments: files that use all of the addon.
    arguments: ['basics', 'query', 'arguments', 'guards', 'names', 'close', 'timeout', 'corrupt'],
    leftOut: 'the other files of jest: they start many processes, each of which is slow to start under it',
  },
  thread: {
    parts: ['native-tests'],
    suites: 'native',
    // report_destroy_locked: a storage that is replaced (downgrade, steal, recovery) is retired as it is, locked or not,
    // and initialised before it is used again (INV-3 in native/protocol.h).
    env: () => ({ TSAN_OPTIONS: 'report_destroy_locked=0 halt_on_error=1' }),
    arguments: ['client_test', 'stress_test'],
  },
};

const [kind, ...given] = process.argv.slice(2);
const run = RUNS[kind];
if (!run) throw new Error(`${kind}: not one of ${Object.keys(RUNS).join(', ')}`);

const instrumented = { ...process.env, PROCLOCK_INSTRUMENT: kind };
execute(['scripts/ensure.mjs', ...run.parts], instrumented);
if (run.leftOut && given.length === 0) console.log(`left out: ${run.leftOut}`);
const jestFiles = (name) => (kind === 'address' ? `test/${name}.test.ts` : name);
execute(['scripts/test.mjs', run.suites, ...(given.length > 0 ? given : run.arguments.map(jestFiles))], {
  ...instrumented,
  ...run.env(),
});

function libraryPath(name) {
  return execFileSync(process.env.CC ?? 'gcc', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim();
}

function execute(args, env) {
  const { status, signal } = spawnSync(process.execPath, args, { stdio: 'inherit', env });
  if (status !== 0) process.exit(signal ? 1 : status);
}
