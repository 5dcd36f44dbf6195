import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * One script of a module of CommonJS files, what it requires by relative paths, and a main part: as a bundler makes it.
 * The main part has the module as `bundled`, and `require` for the builtin ones.
 */
export function bundle(folder: string, module: string, main: string): string {
  const files = new Map<string, string>();
  const add = (id: string) => {
    if (files.has(id)) return;
    const text = readFileSync(join(folder, `${id}.js`), 'utf8').replace(
      /require\("(\.\.?\/[\w/-]+)"\)/g,
      (_, required) => `require(${JSON.stringify(join(dirname(id), required))})`,
    );
    files.set(id, `${JSON.stringify(id)}(exports, require) {${text}\n}`);
    for (const [, required] of text.matchAll(/require\("([\w/-]+)"\)/g)) {
      if (existsSync(join(folder, `${required}.js`))) add(required!);
    }
  };
  add(module);
  return `
    const files = {${[...files.values()].join(',')}};
    const loaded = {};
    const load = (id) => {
      if (!(id in files)) return require(id);
      if (!(id in loaded)) files[id]((loaded[id] = {}), load);
      return loaded[id];
    };
    const bundled = load(${JSON.stringify(module)});
    ${main}`;
}
