// Tests under a sanitizer: `node scripts/sanitize.mjs address|thread [arguments for jest]`.
//
//   address  AddressSanitizer and UBSan: the native tests, then jest with an addon that is built so, in every process.
//            Of the tests that simulate the machine (sim_*), the exploration alone, and fewer schedules; of the deaths
//            at every step, each third
//   thread   ThreadSanitizer: the native tests in which threads of one process meet
import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(resolve(dirname(fileURLToPath(import.meta.url)), '..'));

/** Files of jest that AddressSanitizer has no part in. */
const LEFT_OUT = {
  'crash-points.test.ts': 'the addon with crash points is not sanitized',
  'documents.test.ts': 'it runs nothing',
  'examples.test.ts': 'the others run all of the addon that the examples use',
  'local.test.ts': 'no native code is in it',
  'readme.test.ts': 'the others run all of the addon that the README uses',
  'troubleshooting.test.ts': 'it makes a SIGBUS on purpose, which the sanitizer takes for a fault',
  'unsupported.test.ts':
    'its packages have no binary, and get the sanitized one all the same, through the environment',
};

const RUNS = {
  address: {
    parts: ['native', 'native-tests', 'dist'],
    suites: 'native,jest',
    // Who dies by a signal, or exits without a word, leaks; most tests do that on purpose, and so does Node itself.
    env: () => ({
      ASAN_OPTIONS: 'detect_leaks=0',
      UBSAN_OPTIONS: 'print_stacktrace=1',
      PROCLOCK_SIM_SCHEDULES: '5000',
      PROCLOCK_DEATH_STRIDE: '3',
      // Node is not built with it, and it has to be there before everything else.
      LD_PRELOAD: libraryPath('libasan.so'),
    }),
    arguments: () =>
      readdirSync('test')
        .filter((file) => file.endsWith('.test.ts') && !(file in LEFT_OUT))
        .map((file) => `test/${file}`),
  },
  thread: {
    parts: ['native-tests'],
    suites: 'native',
    // report_destroy_locked: a storage that is replaced (downgrade, steal, recovery) is retired as it is, locked or not,
    // and initialised before it is used again (INV-3 in native/core/protocol.h).
    // detect_deadlocks: a lock that its holder left behind is unlocked by whoever clears up, and its detector then believes
    // that the former holder still has it. Storages are only ever tried, so that nothing can be deadlocked with them.
    env: () => ({
      TSAN_OPTIONS: `report_destroy_locked=0 halt_on_error=1 detect_deadlocks=0 suppressions="${resolve('test/native/tsan.supp')}"`,
    }),
    arguments: () => [], // proclock.gypi builds those alone
  },
};

const [kind, ...given] = process.argv.slice(2);
const run = RUNS[kind];
if (!run) throw new Error(`${kind}: not one of ${Object.keys(RUNS).join(', ')}`);

const instrumented = { ...process.env, PROCLOCK_INSTRUMENT: kind };
execute(['scripts/ensure.mjs', ...run.parts], instrumented);
if (kind === 'address' && given.length === 0) {
  for (const [file, reason] of Object.entries(LEFT_OUT)) console.log(`left out: ${file}: ${reason}`);
}
execute(['scripts/test.mjs', run.suites, ...(given.length > 0 ? given : run.arguments())], {
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
