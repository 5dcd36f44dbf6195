// Writes dist/*.mjs and dist/*.d.mts, the ESM side of each entry in package.json's `exports`.
//
// An ESM entry holds no code: it re-exports the CommonJS one by name. A program that imports the package in one place
// and requires it in another (or in a dependency) thus has one set of classes and one state.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);
const { exports: entries } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

for (const entry of Object.values(entries)) {
  if (entry.import) writeEntry(entry);
}

function writeEntry(entry) {
  const source = join(root, entry.require.default);
  const specifier = JSON.stringify(`./${basename(source)}`);
  const names = Object.keys(require(source)).filter((name) => name !== 'default');
  if (names.length === 0) throw new Error(`${source} exports nothing`);

  // Node would find most names in the CommonJS file by itself, by guessing from its text. This does not guess. Tools that run
  // this file themselves, as vitest does with what it is told to inline, have the exports by name, and a default of their own.
  const lines = [
    `import * as all from ${specifier};`,
    '',
    `const cjs = all.default?.${names[0]} === undefined ? all : all.default;`,
    'export const {',
    ...names.sort().map((name) => `  ${name},`),
    '} = cjs;',
  ];
  writeFileSync(join(root, entry.import.default), `${lines.join('\n')}\n`);
  writeFileSync(join(root, entry.import.types), `export * from ${specifier};\n`);
}
