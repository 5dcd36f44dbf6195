// Installs the package's tarball as its users do, and runs the suite in test/smoke against it.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** Packs the package: the tarball, in a temporary folder, and what is in it. dist/ must be there. */
export function pack() {
  const folder = mkdtempSync(join(tmpdir(), 'proclock-pack-'));
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const output = execFileSync('npm', args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 2],
    shell: process.platform === 'win32',
  });
  const [packed] = JSON.parse(output);
  return { folder, file: join(folder, packed.filename), contents: packed.files.map(({ path }) => path) };
}

/** Installs a tarball into an empty folder, with a PATH on which there is Node and nothing else, and no scripts. */
export function installTarball(file) {
  const installed = mkdtempSync(join(tmpdir(), 'proclock-install-'));
  const path = join(installed, 'bin');
  mkdirSync(path);
  symlinkSync(process.execPath, join(path, 'node'));
  writeFileSync(join(installed, 'package.json'), '{ "private": true }');
  const args = ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', file];
  execFileSync(process.execPath, [npmScript(), ...args], {
    cwd: installed,
    env: { ...process.env, PATH: path },
    stdio: ['ignore', 'ignore', 2],
  });
  cpSync(join(root, 'test/smoke'), installed, { recursive: true });
  return { installed, path };
}

/** Runs the suite in the folder: what went wrong, if anything did. */
export function smoke(installed, command, entry, env = {}, args = []) {
  const { status, signal, stdout, stderr, error } = spawnSync(
    command[0],
    [...command.slice(1), join(installed, entry), ...args],
    { cwd: installed, env: { ...process.env, ...env }, encoding: 'utf8', timeout: 1_800_000 },
  );
  return status === 0 && /^[1-9]\d* passed, 0 failed$/m.test(stdout)
    ? []
    : [`ended with ${error?.message ?? signal ?? status}`, stdout ?? '', stderr ?? ''];
}

function npmScript() {
  if (process.env.npm_execpath) return process.env.npm_execpath;
  const found = (process.env.PATH ?? '')
    .split(delimiter)
    .map((folder) => join(folder, 'npm'))
    .find(existsSync);
  return realpathSync(found);
}
