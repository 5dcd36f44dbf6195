// Without a binary for this platform the package can be loaded, and says what is missing when a lock is first used.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

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
