// Installs one tarball as its users do and runs the suite in test/smoke with this Node: `node scripts/check-tarball.mjs FILE`.
// Needs nothing but npm.
import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { installTarball, smoke } from './install.mjs';

const [file] = process.argv.slice(2);
if (file === undefined) throw new Error('usage: node scripts/check-tarball.mjs FILE');

const { installed, path } = installTarball(resolve(file));
try {
  for (const entry of ['main.cjs', 'main.mjs', 'command.cjs']) {
    const problems = smoke(installed, [process.execPath], entry, { PATH: path });
    console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} Node ${process.version}, ${entry}`);
    for (const problem of problems) console.log(problem);
    if (problems.length > 0) process.exitCode = 1;
  }
} finally {
  rmSync(installed, { recursive: true });
}
