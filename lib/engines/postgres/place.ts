// What a session knows of its holds and waits, each of which has two names: that of whoever asked for it, and that which the
// server is told.
//
// Any role may send messages to our channel, also one that has no right to the tables. It can not guess what a wait is called
// there, so that it can not tell us of a grant that never was.
import { randomInt } from 'node:crypto';
import type { Slot } from '../../remote/engine';
import type { Message } from './answers';

/** What the server calls places is below this: `randomInt` goes no further, and JSON keeps all of it exact. */
const NUMBER_MAX = 2 ** 48 - 1;

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

  /** @param number what the server calls it */
  constructor(
    readonly slot: Slot,
    readonly number: number,
    readonly key: Buffer,
  ) {}

  /** Whether it waits for the lock itself: nothing was granted yet. */
  get waitsForFirst(): boolean {
    return this.state === 'waits' && this.token < 0n;
  }
}

/** All places of a session. */
export class Places {
  private readonly byId = new Map<number, Place>();
  private readonly byNumber = new Map<number, Place>();

  add(slot: Slot, key: Buffer): Place {
    let number: number;
    do number = randomInt(NUMBER_MAX);
    while (this.byNumber.has(number));
    const place = new Place(slot, number, key);
    this.byId.set(slot.id, place);
    this.byNumber.set(number, place);
    return place;
  }

  of({ id }: Slot): Place | undefined {
    return this.byId.get(id);
  }

  numbered(number: number): Place | undefined {
    return this.byNumber.get(number);
  }

  delete({ slot, number }: Place): void {
    this.byId.delete(slot.id);
    this.byNumber.delete(number);
  }
}
