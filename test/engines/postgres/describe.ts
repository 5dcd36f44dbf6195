import { describeWith } from '../programs';
import { isThere } from './server';

/** `describe`, or where there is no PostgreSQL, `describe.skip`. */
export const describeWithServer = describeWith(isThere, 'there is no PostgreSQL (initdb, postgres) on PATH');
