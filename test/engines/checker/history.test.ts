// The judge of the checker finds what is wrong, and nothing else.
import { type Entry, type History, judge } from './history';

const hold = (
  mode: Entry['mode'],
  from: number,
  to: number,
  token: number,
  more: Partial<Entry> = {},
): Entry => ({
  name: 'x',
  process: 1,
  session: 0,
  mode,
  from,
  to,
  token: BigInt(token),
  lost: false,
  ...more,
});
const of = (entries: Entry[], more: Partial<History> = {}): History => ({
  entries,
  thefts: [],
  cuts: [],
  ...more,
});
const kinds = (history: History) => judge(history).map((wrong) => wrong.split(':')[0]);

test.each<[string, History]>([
  ['one behind another', of([hold('exclusive', 0, 1, 1), hold('exclusive', 1, 2, 2)])],
  ['readers together', of([hold('shared', 0, 5, 1), hold('shared', 1, 2, 1), hold('exclusive', 5, 6, 2)])],
  ['other names', of([hold('exclusive', 0, 5, 1), hold('exclusive', 1, 2, 1, { name: 'y' })])],
  [
    'a theft',
    of([hold('exclusive', 0, 5, 1, { lost: true }), hold('exclusive', 3, 6, 2)], {
      thefts: [{ name: 'x', asked: 2, token: 2n }],
    }),
  ],
  [
    'a grant that is heard of when it was stolen',
    of([hold('exclusive', 3, 6, 2), hold('exclusive', 4, 5, 1, { lost: true })], {
      thefts: [{ name: 'x', asked: 2, token: 2n }],
    }),
  ],
  [
    'a connection that was cut',
    of([hold('exclusive', 0, 5, 1, { lost: true }), hold('exclusive', 3, 6, 2)], {
      cuts: [{ process: 1, at: 2, until: 2 }],
    }),
  ],
  [
    'a grant that is heard of when its session was ended',
    of([hold('exclusive', 3, 6, 2, { process: 2 }), hold('shared', 4, 5, 1, { lost: true })], {
      cuts: [{ process: 1, at: 2, until: 3 }],
    }),
  ],
])('finds nothing in %s', (_, history) => {
  expect(judge(history)).toEqual([]);
});

test.each<[string, string[], History]>([
  ['two writers', ['H1'], of([hold('exclusive', 0, 5, 1), hold('exclusive', 4, 6, 2)])],
  ['a reader beside a writer', ['H1'], of([hold('exclusive', 0, 5, 1), hold('shared', 4, 6, 1)])],
  ['a writer beside a reader', ['H1'], of([hold('shared', 0, 5, 1), hold('exclusive', 4, 6, 2)])],
  [
    'a writer within a long reader, behind a short one',
    ['H1'],
    of([hold('shared', 0, 9, 1), hold('shared', 1, 2, 1), hold('exclusive', 4, 6, 2)]),
  ],
  ['the same token twice', ['H2'], of([hold('exclusive', 0, 1, 1), hold('exclusive', 2, 3, 1)])],
  ['a token that goes back', ['H2'], of([hold('exclusive', 0, 1, 2), hold('exclusive', 2, 3, 1)])],
  ['a reader with an old token', ['H3'], of([hold('exclusive', 0, 1, 2), hold('shared', 2, 3, 1)])],
  [
    'a hold that outlived its lease',
    ['H1'],
    of([hold('exclusive', 0, 5, 1, { lost: true }), hold('exclusive', 3, 6, 2)]),
  ],
  [
    'a cut of another process',
    ['H1'],
    of([hold('exclusive', 0, 5, 1, { lost: true }), hold('exclusive', 3, 6, 2)], {
      cuts: [{ process: 2, at: 2, until: 2 }],
    }),
  ],
  [
    'a session that began when another one had been ended',
    ['H1'],
    of([hold('exclusive', 3, 6, 2), hold('shared', 4, 5, 2, { lost: true, session: 3 })], {
      cuts: [{ process: 1, at: 1, until: 2 }],
    }),
  ],
  [
    'a theft that came before',
    ['H1'],
    of([hold('exclusive', 0, 5, 3, { lost: true }), hold('exclusive', 3, 6, 4)], {
      thefts: [{ name: 'x', asked: 2, token: 2n }],
    }),
  ],
  [
    'a theft that came later',
    ['H1'],
    of([hold('exclusive', 0, 5, 1, { lost: true }), hold('exclusive', 3, 6, 2)], {
      thefts: [{ name: 'x', asked: 4, token: 2n }],
    }),
  ],
])('finds %s', (_, found, history) => {
  expect(kinds(history)).toEqual(found);
});
