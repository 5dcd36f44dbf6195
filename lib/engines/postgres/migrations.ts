// The texts of the .sql files, in their order. The build puts them into this module itself, so that a bundle has them as well.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const SQL = join(__dirname, 'sql');

/** The first one has the number 1. */
export const MIGRATIONS: readonly string[] = readdirSync(SQL)
  .sort()
  .map((file) => readFileSync(join(SQL, file), 'utf8'));
