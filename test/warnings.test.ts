// A host may have put something in the place of `process.emitWarning` that throws, as test set-ups do.
import { spawnSync } from 'node:child_process';
import { DIST } from './support/segment';

test('what a host makes of a warning keeps nobody from what comes next, and is not lost', () => {
  const program = `
    const { warn } = require(${JSON.stringify(`${DIST}/common/warnings`)});
    process.on('uncaughtException', ({ message }) => console.log(message));
    process.emitWarning = (message, { code }) => { throw new Error(message + ' ' + code); };
    warn('no warnings here', 'CODE');
    console.log('went on');`;
  const { stdout, status } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' });
  expect({ stdout, status }).toEqual({ stdout: 'went on\nno warnings here CODE\n', status: 0 });
});
