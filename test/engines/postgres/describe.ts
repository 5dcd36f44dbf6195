import { isThere } from './server';

/** `describe`, or where there is no PostgreSQL, `describe.skip`. */
export const describeWithServer: jest.Describe = isThere ? describe : describe.skip;
if (!isThere) {
  console.log('skipped: there is no PostgreSQL (initdb, postgres) on PATH, and it can not be installed here');
}
