// Which declarations (.d.ts, .d.mts) the entries of the package lead to. The others are of no use to anybody.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** The files that package.json's "exports" name, relative to its folder. */
export function entries(manifest) {
  return Object.values(manifest.exports).flatMap(function leaves(value) {
    return typeof value === 'string' ? [value.replace('./', '')] : Object.values(value).flatMap(leaves);
  });
}

/** Those of `paths` that are declarations which nobody sees who imports one of the entries. */
export function unreachable(paths, manifest) {
  const seen = new Set(entries(manifest));
  // A set goes on with what is added to it while it is looped over.
  for (const path of seen) {
    if (!path.endsWith('.ts') && !path.endsWith('.mts')) continue;
    for (const [, module] of readFileSync(path, 'utf8').matchAll(/from ['"](\.\.?\/[\w/-]+)(?:\.js)?['"]/g))
      seen.add(join(path, '..', `${module}.d.ts`));
  }
  return paths.filter((path) => /\.d\.m?ts$/.test(path) && !seen.has(path));
}
