// All topics of the suite, by the words that stand before the properties.
import type { Cases } from '../stage';
import { args, callbacks, handles, names } from './calls';
import { exclusion } from './exclusion';

export const all: Record<string, Cases> = {
  exclusion,
  callbacks,
  arguments: args,
  names,
  handles,
};
