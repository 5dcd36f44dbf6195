// Without a binary for this platform the package can be loaded, and says what is missing when a lock is first used.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bundle } from './support/bundle';
import { DIST } from './support/segment';

const ROOT = join(__dirname, '..');
const FOREIGN = join('prebuilds', 'plan9-mips', 'proclock.node');
let folder: string;
let installed: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'proclock-unsupported-'));
  installed = join(folder, 'node_modules/proclock');
  mkdirSync(installed, { recursive: true });
  for (const path of ['package.json', 'dist']) {
    cpSync(join(ROOT, path), join(installed, path), { recursive: true });
  }
  cpSync(join(ROOT, 'node_modules/node-gyp-build'), join(folder, 'node_modules/node-gyp-build'), {
    recursive: true,
  });
});

afterEach(() => rmSync(folder, { recursive: true }));

function place(path: string, content: string): void {
  mkdirSync(join(installed, path, '..'), { recursive: true });
  writeFileSync(join(installed, path), content);
}

function evaluate(program: string, nodeOptions: string[] = []): string {
  return execFileSync(process.execPath, [...nodeOptions, '-e', program], { cwd: folder, encoding: 'utf8' });
}

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly isLockError: boolean;
}

function firstUse(nodeOptions: string[] = []): Failure {
  const program = `
    const { SharedLock, LockError } = require('proclock');
    try {
      new SharedLock('x').tryExclusive();
    } catch (error) {
      const { code, message } = error;
      console.log(JSON.stringify({ code, message, isLockError: error instanceof LockError }));
    }`;
  return JSON.parse(evaluate(program, nodeOptions));
}

test('the first use says for which platform nothing was found, where it was looked for, and how to build it', () => {
  place(FOREIGN, '');
  const { code, message, isLockError } = firstUse();
  expect(code).toBe('ERR_LOCK_UNSUPPORTED');
  expect(isLockError).toBe(true);
  expect(message).toContain(`${process.platform}-${process.arch}`);
  expect(message).toContain(`prebuilds/${process.platform}-${process.arch}/proclock.`);
  expect(message).toContain('build/Release/proclock.node');
  expect(message).toContain('node-gyp rebuild');
  expect(message).not.toContain('not installed completely');
});

test('a package whose binaries were removed says that it is incomplete', () => {
  const { code, message } = firstUse();
  expect(code).toBe('ERR_LOCK_UNSUPPORTED');
  expect(message).toContain('the folder prebuilds is missing');
  expect(message).toContain('install it again');
});

test('a binary that can not be loaded is named, with the reason', () => {
  place('build/Release/proclock.node', 'not a shared object');
  const { code, message } = firstUse();
  expect(code).toBe('ERR_LOCK_UNSUPPORTED');
  expect(message).toMatch(/build.Release.proclock\.node: .*(invalid ELF header|file too short)/);
});

test('where native code is forbidden, the flag that allows it is named', () => {
  place('build/Release/proclock.node', '');
  expect(firstUse(['--no-addons']).message).toContain('--allow-addons');
});

test('every name can be imported and required, and every later use says the same', () => {
  const program = `
    const cjs = require('proclock');
    import('proclock').then(({ LockError, ...esm }) => {
      const codes = ['SharedLock', 'SharedRLock', 'Lock', 'RLock'].map((name) => {
        try {
          new esm[name]('x');
        } catch (error) {
          return error instanceof cjs.LockError && error.code;
        }
      });
      console.log(JSON.stringify([...new Set(codes)]));
    });`;
  expect(JSON.parse(evaluate(program))).toEqual(['ERR_LOCK_UNSUPPORTED']);
});

test('proclock/local works', () => {
  const program = `
    const { Local } = require('proclock/local');
    const local = new Local(() => ({ count: 0 }));
    local.count++;
    console.log(local.count, Object.keys(local));`;
  expect(evaluate(program)).toBe("1 [ 'count' ]\n");
});

describe('bundled into one file', () => {
  const MAIN = `
    try {
      new bundled.SharedLock('x');
    } catch ({ code, message }) {
      console.log(JSON.stringify({ code, message }));
    }`;
  const run = (place: string): Failure => {
    const file = join(folder, place);
    mkdirSync(join(file, '..'), { recursive: true });
    writeFileSync(file, bundle(DIST, 'index', MAIN));
    return JSON.parse(execFileSync(process.execPath, [file], { cwd: folder, encoding: 'utf8' }));
  };
  const says = (failure: Failure) => {
    expect(failure.code).toBe('ERR_LOCK_UNSUPPORTED');
    for (const word of [
      'bundled',
      'external',
      'webpack',
      'serverExternalPackages',
      'Vite',
      '--external:proclock',
    ]) {
      expect(failure.message).toContain(word);
    }
    expect(failure.message).not.toContain('binding.gyp');
  };

  test('the error says how to leave the package out of the bundle', () => says(run('app.js')));

  test('it takes no addon of the program around it for ours', () => {
    mkdirSync(join(folder, 'build/Release'), { recursive: true });
    writeFileSync(join(folder, 'build/Release/theirs.node'), 'not ours');
    writeFileSync(join(folder, 'package.json'), '{ "name": "theirs" }');
    says(run('dist/server/app.js'));
  });
});

test('an ESM entry has its exports also where a tool runs it and the CommonJS file itself', () => {
  // As vitest does with what it inlines: the default export is what was assigned, not what was defined.
  for (const entry of ['index', 'local']) {
    const text = readFileSync(join(DIST, `${entry}.mjs`), 'utf8')
      .replace(/import (?:\* as )?(\w+) from ".*";/, 'const $1 = imported;')
      .replace('export const {', 'return {')
      .replace(/} = (\w+);/, '};');
    const named = require(join(DIST, `${entry}.js`)) as object;
    const names = Object.keys(named);
    const stale = Object.fromEntries(names.map((key) => [key, undefined]));
    const destructured = text.replace(
      /return {([^}]*)}/,
      (_, list) => `return (({${list}}) => ({${list}}))(cjs)`,
    );
    const evaluate = (imported: object) => new Function('imported', destructured)(imported) as object;
    expect(evaluate({ ...named, default: stale })).toEqual(Object.fromEntries(Object.entries(named)));
    expect(evaluate({ default: named })).toEqual(Object.fromEntries(Object.entries(named)));
  }
});
