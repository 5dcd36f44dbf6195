// All topics of the suite, by the words that stand before the properties.
import type { Cases } from '../stage';
import { args, callbacks, handles, names } from './calls';
import { abandoned, deaths } from './death';
import { exclusion } from './exclusion';
import { guards, leaks, tokens } from './guards';
import { losses } from './losses';
import { owner, ownerTable } from './owner';
import { query } from './query';
import { queue } from './queue';
import { random } from './random';
import { spaces } from './space';
import { upgrades } from './upgrade';
import { aborts, timeouts } from './waits';
import { watching } from './watching';
import { steals, webLocks } from './web-locks';

export const all: Record<string, Cases> = {
  exclusion,
  callbacks,
  arguments: args,
  names,
  handles,
  'the owner table': ownerTable,
  owner,
  queue,
  timeouts,
  aborts,
  guards,
  tokens,
  deaths,
  abandoned,
  query,
  'Web Locks': webLocks,
  thefts: steals,
  upgrades,
  losses,
  spaces,
  watching,
  'a random story': random,
  'leaked guards': leaks,
};
