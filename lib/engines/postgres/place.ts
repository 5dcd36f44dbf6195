// What a session knows of one of its holds or waits.
import type { Slot } from '../../remote/engine';
import type { Message } from './answers';

export class Place {
  /** `asked`: not yet known whether it waits. `waits`: for the lock, or for an upgrade. */
  state: 'asked' | 'waits' | 'settled' = 'asked';
  /** How many questions about it are not answered yet, or the caller does not have the answer. */
  asked = 0;
  /** What came meanwhile: to be told when the caller has the last answer. */
  early: Message[] | undefined = undefined;
  /** The theft of what it waits for, which was heard of before the grant. To be told right behind that, which always comes. */
  robbed: Message | undefined = undefined;
  /** Of the last grant that was told. What comes late has no greater one. */
  token = -1n;
  /** What it was when an upgrade was asked for: a grant that is the answer to that has a greater one. */
  tokenBefore = -1n;

  constructor(
    readonly slot: Slot,
    readonly key: Buffer,
  ) {}

  /** Whether it waits for the lock itself: nothing was granted yet. */
  get waitsForFirst(): boolean {
    return this.state === 'waits' && this.token < 0n;
  }
}
