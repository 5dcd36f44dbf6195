// The packages that proclock is measured with and against. They are installed here, for this folder alone, when a
// benchmark first runs; no install script of theirs is, because npm does not run those by default.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import workerThreads from 'node:worker_threads';
import { isCached, npmPackage } from '../tools.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, '../..');
const require = createRequire(import.meta.url);

/** Installs what is missing. */
export function ensurePeers() {
  if (!isInstalled()) {
    say('npm ci in scripts/bench');
    run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], here);
  }
  // Not a Node-API addon: built for one version of Node at a time. fs-native-extensions brings its binaries.
  const addon = join(here, 'node_modules/fs-ext');
  const stamp = join(addon, 'build/.built-for');
  const wanted = `${process.platform}-${process.arch}-${process.versions.modules}`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return;
  say('building fs-ext');
  const nodeGyp = join(root, 'node_modules/node-gyp/bin/node-gyp.js');
  if (run(process.execPath, [nodeGyp, 'rebuild', '--loglevel=error', ...headers()], addon)) {
    writeFileSync(stamp, wanted);
  }
}

/** A peer, or null where it does not work on this machine: its lines are then missing in the tables. */
export function peer(name) {
  try {
    return require(name);
  } catch (error) {
    say(`without ${name}: ${error.message.split('\n')[0]}`);
    return null;
  }
}

/** A Node that has `worker_threads.locks`, and if there is none, why. `offline`: only one that is there already. */
export function nodeWithLocks(offline) {
  if (workerThreads.locks !== undefined) return { path: process.execPath };
  const spec = `node-linux-${process.arch}@24.21.0`;
  if (offline && !isCached(spec)) return { path: process.execPath, missing: `no ${spec} in the cache` };
  try {
    return { path: join(npmPackage(spec), 'bin/node') };
  } catch (error) {
    return { path: process.execPath, missing: error.message };
  }
}

/** Compares what npm recorded as installed with the lock file. */
function isInstalled() {
  const installed = packages('node_modules/.package-lock.json');
  const locked = packages('package-lock.json');
  return Object.entries(locked).every(
    ([path, { version }]) => path === '' || installed[path]?.version === version,
  );
}

function packages(file) {
  const path = join(here, file);
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')).packages : {};
}

/** Where Node's headers are, if they are beside its binary: node-gyp downloads them otherwise. */
function headers() {
  const prefix = process.env.npm_config_nodedir ?? resolve(dirname(process.execPath), '..');
  return existsSync(join(prefix, 'include/node/node.h')) ? [`--nodedir=${prefix}`] : [];
}

function run(command, args, cwd) {
  // Their compiler warnings are nobody's business here; what they print is shown if they fail.
  const { status, error, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status === 0) return true;
  say(`${stderr ?? ''}\nfailed (${error?.message ?? `exit code ${status}`}): ${command} ${args.join(' ')}`);
  return false;
}

function say(message) {
  console.error(`bench: ${message}`);
}
