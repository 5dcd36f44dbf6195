// What is said on macOS: where a segment is, who removes it, and what it lacks where there can be none. The words are chosen when the
// package is loaded, so they can be read on any system.
import { constants } from 'node:os';
import type * as Errors from '../lib/shm/errors';

const FILE = '/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/C/proclock-501-default';
const { errno } = constants;

function errorsOn(platform: NodeJS.Platform): typeof Errors {
  const before = Object.getOwnPropertyDescriptor(process, 'platform')!;
  let errors: typeof Errors | undefined;
  Object.defineProperty(process, 'platform', { ...before, value: platform });
  try {
    jest.isolateModules(() => {
      errors = require('../lib/shm/errors') as typeof Errors;
    });
  } finally {
    Object.defineProperty(process, 'platform', before);
  }
  return errors!;
}

const { errorOf, Status } = errorsOn('darwin');

function said(status: number, error = 0, found = { foundVersion: 0, foundAbi: 0 }): string {
  const failure = { errno: error, ourVersion: 2, ourAbi: 4, ...found };
  const { code, message } = errorOf(status, 'open', { name: 'x', file: FILE }, failure);
  return `${code}: ${message}`;
}

test.each([
  [Status.SYSTEM, errno.ENOLCK, /^ERR_LOCK_UNSUPPORTED: .*do not exclude each other.*macOS 11/],
  [Status.SYSTEM, errno.ENOTSUP, /^ERR_LOCK_UNSUPPORTED: .*can not be woken by another process.*macOS 11/],
  [Status.SYSTEM, 0, /^ERR_LOCK_UNSUPPORTED: .*DARWIN_USER_CACHE_DIR.*daemonizing/],
  [Status.SYSTEM, errno.EMFILE, /^ERR_LOCK_UNSUPPORTED: .*ulimit -n/],
  [Status.NO_SPACE, errno.ENOSPC, /^ERR_LOCK_NO_SPACE: .*free space on its volume$/],
  [Status.REMOVED, 0, /^ERR_LOCK_NAMESPACE_REMOVED: .*a cleaning app or script/],
  [Status.PERMISSION, errno.EROFS, /^ERR_LOCK_PERMISSION: .*its volume is mounted read-only$/],
  [Status.PERMISSION, errno.EACCES, /^ERR_LOCK_PERMISSION: .*App Sandbox/],
])('status %i with errno %i', (status, error, words) => {
  const text = said(status, error);
  expect(text).toMatch(words);
  expect(text).toContain(FILE);
  expect(text).not.toMatch(/\/dev\/shm|systemd|container with/);
});

test('Rosetta beside a native process', () => {
  expect(said(Status.INCOMPATIBLE, 0, { foundVersion: 2, foundAbi: 3 })).toMatch(
    /^ERR_LOCK_INCOMPATIBLE: .*built for macOS on Intel \(or under Rosetta\), this is .* for macOS on Apple silicon;/,
  );
});

test('on Linux it is /dev/shm', () => {
  const linux = errorsOn('linux');
  const subject = { name: 'x', file: '/dev/shm/proclock-1000-default' };
  expect(linux.errorOf(linux.Status.SYSTEM, 'open', subject).message).toContain('is /dev/shm mounted');
});
