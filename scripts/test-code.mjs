// What tests and scripts have in common is TypeScript below test/: it is compiled here, in memory, when it is asked for.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** The exports of a file, by its path below test/. */
export function testCode(path) {
  const { ModuleKind, ScriptTarget, transpileModule } = require('typescript');
  const compilerOptions = { module: ModuleKind.CommonJS, target: ScriptTarget.ES2022, esModuleInterop: true };
  require.extensions['.ts'] ??= (module, file) => {
    module._compile(transpileModule(readFileSync(file, 'utf8'), { compilerOptions }).outputText, file);
  };
  return require(`../test/${path}`);
}
