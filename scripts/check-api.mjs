// The public types are a text in docs/api-report/, one file an entry of package.json's `exports`, so that every change of them
// shows in a review: compares what is there with what dist/ declares. `--write` writes it anew.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Extractor, ExtractorConfig } from '@microsoft/api-extractor';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
process.chdir(root);

const REPORTS = resolve('docs/api-report');
const write = process.argv.includes('--write');
const { exports: entries } = JSON.parse(readFileSync('package.json', 'utf8'));
const temporary = mkdtempSync(join(tmpdir(), 'proclock-api-'));

mkdirSync(REPORTS, { recursive: true });
const problems = [];
const names = [];
try {
  for (const { require: entry } of Object.values(entries)) {
    if (entry === undefined) continue; // package.json
    const name = entry.types.replace(/^\.\/dist\/(.*)\.d\.ts$/, '$1');
    names.push(`${name}.api.md`);
    if (!check(name, resolve(entry.types)))
      problems.push(`the public types of ${name} are not those of docs/api-report`);
  }
  for (const file of readdirSync(REPORTS)) {
    if (!names.includes(file)) problems.push(`docs/api-report/${file} is of no entry`);
  }
} finally {
  rmSync(temporary, { recursive: true });
}
for (const problem of problems) console.error(`${problem}: npm run check:api -- --write`);
process.exitCode = problems.length === 0 ? 0 : 1;

function check(name, types) {
  const config = ExtractorConfig.prepare({
    configObject: {
      projectFolder: root,
      mainEntryPointFilePath: types,
      compiler: { tsconfigFilePath: resolve('tsconfig.json') },
      apiReport: {
        enabled: true,
        reportFileName: `${name}.api.md`,
        reportFolder: REPORTS,
        reportTempFolder: temporary,
        includeForgottenExports: true,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      newlineKind: 'lf',
      messages: {
        compilerMessageReporting: { default: { logLevel: 'warning' } },
        // How it is documented is typedoc's business.
        extractorMessageReporting: { default: { logLevel: 'none' } },
        tsdocMessageReporting: { default: { logLevel: 'none' } },
      },
    },
    configObjectFullPath: undefined,
    packageJsonFullPath: resolve('package.json'),
  });
  const { apiReportChanged } = Extractor.invoke(config, {
    localBuild: write,
    messageCallback: (message) => {
      message.handled = true;
      if (message.logLevel === 'error') problems.push(message.text);
    },
  });
  return write || !apiReportChanged;
}
