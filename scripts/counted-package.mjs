// A copy of the package that counts what is reached of lib/: its lib/ and dist/ both hold the compiled files, instrumented
// by istanbul. So the same counts come from what runs in jest's own processes and from what runs in all that they start.
//
// Each statement and each branch that is reached for the first time in a thread is written down at once, as an empty file
// with its name: many a process is killed, and some may write nothing, or to files of no size.
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, relative, resolve } from 'node:path';
import coverage from 'istanbul-lib-coverage';
import { createInstrumenter } from 'istanbul-lib-instrument';
import sourceMaps from 'istanbul-lib-source-maps';

const VARIABLE = '__proclock_coverage__';
// Biome takes each biome.json for the root of a project, and there can be but one.
const LEFT_OUT = ['.cache', '.git', 'biome.json', 'build', 'dist', 'lib', 'node_modules', 'prebuilds'];

/** Makes the copy in `folder`, from the package here and its dist/, with this addon. */
export function makeCountedPackage(folder, addon) {
  const hits = join(folder, 'hits');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(hits, { recursive: true });
  chmodSync(hits, 0o777); // some tests are run as somebody else
  for (const name of readdirSync('.').filter((name) => !LEFT_OUT.includes(name))) {
    cpSync(name, join(folder, name), { recursive: true });
  }
  symlinkSync(resolve('node_modules'), join(folder, 'node_modules'));
  cpSync(addon, join(folder, 'build/Release/proclock.node'), { recursive: true });

  const instrumenter = createInstrumenter({
    coverageVariable: VARIABLE,
    coverageGlobalScope: 'globalThis',
    coverageGlobalScopeFunc: false,
  });
  cpSync('dist', join(folder, 'dist'), { recursive: true });
  const map = coverage.createCoverageMap();
  // What the build wrote itself has no source in lib/, and no map.
  const maps = readdirSync('dist', { recursive: true }).filter((name) => name.endsWith('.js.map'));
  for (const file of maps.map((name) => name.slice(0, -'.map'.length))) {
    const path = resolve('dist', file);
    const code = instrumenter.instrumentSync(readFileSync(path, 'utf8'), path);
    const [, shebang = '', rest] = /^(#!.*\n)?(.*)$/s.exec(code);
    writeFileSync(
      join(folder, 'dist', file),
      `${shebang}'use strict';(${writeDown})('${VARIABLE}', '${hits}');${rest}`,
    );
    map.addFileCoverage(instrumenter.lastFileCoverage());
  }
  cpSync(join(folder, 'dist'), join(folder, 'lib'), { recursive: true });
  return { counts: () => counts(map, hits) };
}

/** Runs in front of each file, so it knows nothing but its arguments. */
function writeDown(variable, folder) {
  if (globalThis[variable] !== undefined) return;
  const { closeSync, openSync, readdirSync } = require('node:fs');
  // What fails is forbidden by --permission, or wants a descriptor when none is free.
  const attempt = (action) => {
    try {
      return action();
    } catch {}
  };
  const known = new Set(attempt(() => readdirSync(folder)));
  // Only the first time costs more than the counting itself.
  const watch = (counts, name) => {
    for (const key of Object.keys(counts)) {
      const hit = `${name},${key}`;
      if (known.has(hit)) continue;
      const set = (count) => {
        attempt(() => closeSync(openSync(`${folder}/${hit}`, 'a')));
        Object.defineProperty(counts, key, { value: count, writable: true });
      };
      Object.defineProperty(counts, key, { get: () => 0, set, configurable: true });
    }
  };
  const files = {
    set(all, path, data) {
      // From dist/ on, as a file's name.
      const name = path.slice(path.lastIndexOf('/dist/') + 6).replaceAll('/', '+');
      watch(data.s, `${name},s`);
      for (const [id, taken] of Object.entries(data.b)) watch(taken, `${name},b,${id}`);
      all[path] = data;
      return true;
    },
  };
  globalThis[variable] = new Proxy({}, files);
}

/** By file of lib/ and line: whether it was reached, and each of its branches. */
async function counts(map, hits) {
  const reached = new Set(readdirSync(hits));
  const store = sourceMaps.createSourceMapStore();
  for (const path of map.files()) {
    const data = map.fileCoverageFor(path);
    const hit = (...key) =>
      reached.has([relative('dist', path).replaceAll('/', '+'), ...key].join(',')) ? 1 : 0;
    for (const id of Object.keys(data.s)) data.s[id] = hit('s', id);
    for (const id of Object.keys(data.b)) data.b[id] = data.b[id].map((_, index) => hit('b', id, index));
    store.registerMap(path, JSON.parse(readFileSync(`${path}.map`, 'utf8')));
  }
  const mapped = await store.transformCoverage(map);
  return new Map(mapped.files().map((path) => [relative('.', path), byLine(mapped.fileCoverageFor(path))]));
}

function byLine(data) {
  const lines = new Map();
  for (const [line, count] of Object.entries(data.getLineCoverage())) {
    lines.set(Number(line), { count, branches: [] });
  }
  for (const [id, { loc }] of Object.entries(data.branchMap)) {
    const number = loc.start.line;
    // An expression may begin on a line on which no statement does.
    if (!lines.has(number)) lines.set(number, { branches: [] });
    lines.get(number).branches.push(...data.b[id]);
  }
  return lines;
}
