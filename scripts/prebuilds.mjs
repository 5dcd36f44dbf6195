// What is in prebuilds/, and whether it was built from the sources that are here now.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** Of Linux with its two libcs, and of macOS, which has one (`libc` is undefined). */
export const TARGETS = Object.fromEntries(
  ['x64', 'arm64'].flatMap((arch) => [
    ...['glibc', 'musl'].map((libc) => [
      `linux-${arch}-${libc}`,
      { arch, libc, file: `prebuilds/linux-${arch}/proclock.${libc}.node` },
    ]),
    [`darwin-${arch}`, { arch, file: `prebuilds/darwin-${arch}/proclock.node` }],
  ]),
);

export function upToDate(name) {
  const stamp = stampFile(name);
  return (
    existsSync(join(root, TARGETS[name].file)) &&
    existsSync(stamp) &&
    readFileSync(stamp, 'utf8') === fingerprint(name)
  );
}

export function markUpToDate(name) {
  mkdirSync(dirname(stampFile(name)), { recursive: true });
  writeFileSync(stampFile(name), fingerprint(name));
}

// Not in prebuilds/, which is published.
function stampFile(name) {
  return join(root, '.cache/prebuilds', name);
}

/** Of all that decides about a binary, and of the binary. */
function fingerprint(name) {
  const sources = readdirSync(join(root, 'native'), { recursive: true }).filter((file) =>
    /\.(cc|h|map)$/.test(file),
  );
  const inputs = [
    ...sources.sort().map((file) => `native/${file}`),
    'binding.gyp',
    'proclock.gypi',
    'scripts/prebuild.mjs',
    'node_modules/node-addon-api/package.json',
    TARGETS[name].file,
  ];
  const sum = createHash('sha256');
  for (const file of inputs) {
    sum.update(createHash('sha256').update(file).digest());
    sum.update(
      createHash('sha256')
        .update(readFileSync(join(root, file)))
        .digest(),
    );
  }
  return sum.digest('hex');
}
