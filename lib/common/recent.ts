// New objects of which most end at once, and the few others are worth some work: what is kept here is looked at when this
// turn of the event loop is over.
import { startSoon } from './clock';

const ROOM_MIN = 64;

export class Recent<T> {
  // A new array for each batch: a young object that is stored into an old one costs a write barrier.
  private items: T[] = new Array(ROOM_MIN);
  private count = 0;
  private lookIsDue = false;

  /**
   * @param look is called with each that is still there then
   * @param isOver whether it need not be looked at any more: then it is dropped
   * @param then is called after each look
   */
  constructor(
    private readonly look: (item: T) => void,
    private readonly isOver: (item: T) => boolean,
    private readonly then: () => void = () => {},
  ) {}

  /** There will be a look, also if nothing comes. */
  expect(): void {
    if (!this.lookIsDue) this.lookLater();
  }

  /** Keeps it, strongly, until it is looked at. Where this throws, as it may at the end of the stack, it is not kept. */
  add(item: T): void {
    if (this.count === this.items.length) this.makeRoom();
    this.expect();
    this.items[this.count++] = item;
  }

  private makeRoom(): void {
    const { items, count } = this;
    let left = 0;
    for (let i = 0; i < count; i++) if (!this.isOver(items[i] as T)) left++;
    const kept: T[] = new Array(Math.max(2 * left, ROOM_MIN));
    let at = 0;
    if (left > 0) for (let i = 0; i < count; i++) if (!this.isOver(items[i] as T)) kept[at++] = items[i] as T;
    this.items = kept;
    this.count = at;
  }

  private lookLater(): void {
    startSoon(() => {
      this.lookIsDue = false;
      this.flush();
    });
    this.lookIsDue = true; // not before: where that throws nobody would look any more
  }

  private flush(): void {
    const { items, count } = this;
    this.items = new Array(ROOM_MIN);
    this.count = 0;
    for (let i = 0; i < count; i++) {
      const item = items[i] as T;
      if (!this.isOver(item)) this.look(item);
    }
    this.then();
  }
}
