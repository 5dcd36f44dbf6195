// What readelf says of a binary, as far as it decides where that binary can be loaded, and whether it is sound.
import { execFileSync } from 'node:child_process';

export function readElf(file) {
  const read = (...options) =>
    execFileSync('readelf', ['--wide', ...options, file], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C' },
    });
  const header = read('--file-header');
  const field = (name) => new RegExp(`^\\s*${name}:\\s+(.*?)\\s*$`, 'm').exec(header)?.[1];
  const segments = read('--program-headers');
  const dynamic = read('--dynamic');
  const symbols = read('--dyn-syms').matchAll(
    /^\s*\d+: [0-9a-f]+ +\S+ +\S+ +(\S+) +\S+ +(\S+) +([^\s@]+)(?:@+(\S+))?/gm,
  );
  const imports = [];
  const exports = [];
  for (const [, binding, section, name, version] of symbols) {
    if (section !== 'UND') exports.push(name);
    else if (binding !== 'WEAK') imports.push({ name, version });
  }
  return {
    class: field('Class'),
    type: field('Type'),
    machine: field('Machine'),
    needed: [...dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name]) => name),
    versions: [...read('--version-info').matchAll(/Name: ([A-Z][A-Z_]*[0-9][\w.]*)/g)].map(
      ([, name]) => name,
    ),
    imports,
    exports,
    flags: [...dynamic.matchAll(/\((?:FLAGS|FLAGS_1)\)\s+(?:Flags: )?(.*)/g)].flatMap(([, flags]) =>
      flags.split(' '),
    ),
    textRelocations: /\(TEXTREL\)/.test(dynamic),
    searchPath: /\((RPATH|RUNPATH)\)/.test(dynamic),
    relro: /^\s*GNU_RELRO /m.test(segments),
    executableStack: !/^\s*GNU_STACK .* RW +0/m.test(segments),
    sections: [...read('--section-headers').matchAll(/^\s*\[ *\d+\] (\.\S+)/gm)].map(([, name]) => name),
  };
}
