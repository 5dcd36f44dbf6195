// Protocol Buffers, as far as the messages of etcd that are used here need them (messages.ts): varints, bytes, strings,
// booleans, messages in messages, repeated fields. It is written here, for it is shorter than the description that a library
// would have to be given of the same messages, and `@grpc/grpc-js` takes whatever writes and reads bytes.
//
// A field that is missing has the default of its type: 0, no bytes, an empty list, or `undefined` for a message. Fields that
// the description does not have are passed over, as those of later versions.

/** `int`: a number of up to 53 bits and a sign. `id`: any 64 bits, as a bigint without a sign. */
type Scalar = 'int' | 'id' | 'bool' | 'bytes' | 'string';

/** Its number, what it is, and whether there may be many. A message is named by a function, for it may have itself in it. */
type Field = readonly [number: number, type: Scalar | (() => Description), many?: 'many'];

/** Of a message: its fields by their names. */
export type Description = Readonly<Record<string, Field>>;

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

const NO_BYTES = Buffer.alloc(0);
const INT64_BITS = 64;

// ---- writing

export function encode(description: Description, message: object): Buffer {
  const parts: Uint8Array[] = [];
  write(parts, description, message);
  return Buffer.concat(parts);
}

function write(parts: Uint8Array[], description: Description, message: object): void {
  for (const [name, value] of Object.entries(message)) {
    const field = description[name];
    if (field === undefined) throw new TypeError(`there is no field ${name}`);
    if (value === undefined) continue;
    if (field[2] === 'many') for (const each of value as unknown[]) writeField(parts, field, each);
    else writeField(parts, field, value);
  }
}

function writeField(parts: Uint8Array[], [number, type]: Field, value: unknown): void {
  if (type === 'int' || type === 'id' || type === 'bool') {
    parts.push(
      varint((number << 3) | VARINT),
      varint(Number.isInteger(value) ? (value as number) : BigInt(value as bigint)),
    );
    return;
  }
  const bytes =
    type === 'bytes'
      ? (value as Buffer)
      : type === 'string'
        ? Buffer.from(value as string)
        : encode(type(), value as object);
  parts.push(varint((number << 3) | BYTES), varint(bytes.length), bytes);
}

function varint(value: number | bigint): Uint8Array {
  if (typeof value === 'number' && value >= 0 && value < 0x80) return Uint8Array.of(value);
  const bytes: number[] = [];
  let rest = BigInt.asUintN(INT64_BITS, BigInt(value));
  while (rest >= 0x80n) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

// ---- reading

export function decode(description: Description, bytes: Buffer): Record<string, unknown> {
  const fields = fieldsOf(description);
  const message: Record<string, unknown> = {};
  for (const { name, field } of fields.values()) message[name] = defaultOf(field);
  const reader = new Reader(bytes);
  while (!reader.atEnd) {
    const tag = Number(reader.varint());
    const kind = tag & 7;
    const known = fields.get(tag >>> 3);
    if (known === undefined) {
      reader.skip(kind);
      continue;
    }
    const value = read(reader, known.field[1], kind);
    if (known.field[2] === 'many') (message[known.name] as unknown[]).push(value);
    else message[known.name] = value;
  }
  return message;
}

interface NamedField {
  readonly name: string;
  readonly field: Field;
}

const knownFields = new WeakMap<Description, Map<number, NamedField>>();

/** By their numbers. */
function fieldsOf(description: Description): Map<number, NamedField> {
  let fields = knownFields.get(description);
  if (fields === undefined) {
    fields = new Map(Object.entries(description).map(([name, field]) => [field[0], { name, field }]));
    knownFields.set(description, fields);
  }
  return fields;
}

function defaultOf([, type, many]: Field): unknown {
  if (many === 'many') return [];
  switch (type) {
    case 'int':
      return 0;
    case 'id':
      return 0n;
    case 'bool':
      return false;
    case 'bytes':
      return NO_BYTES;
    case 'string':
      return '';
    default:
      return undefined;
  }
}

function read(reader: Reader, type: Field[1], kind: number): unknown {
  const isVarint = type === 'int' || type === 'id' || type === 'bool';
  if (kind !== (isVarint ? VARINT : BYTES))
    throw new RangeError('a field is of another type than it has to be');
  switch (type) {
    case 'int':
      return Number(BigInt.asIntN(INT64_BITS, reader.varint()));
    case 'id':
      return reader.varint();
    case 'bool':
      return reader.varint() !== 0n;
    case 'bytes':
      return reader.bytes();
    case 'string':
      return reader.bytes().toString();
    default:
      return decode(type(), reader.bytes());
  }
}

class Reader {
  private at = 0;

  constructor(private readonly buffer: Buffer) {}

  get atEnd(): boolean {
    return this.at >= this.buffer.length;
  }

  varint(): bigint {
    let low = 0;
    // 28 bits are what fits without a sign. Most numbers are smaller.
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte();
      low |= (byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt(low);
    }
    let value = BigInt(low);
    for (let shift = 28n; shift < 70n; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(INT64_BITS, value);
    }
    throw new RangeError('a number has more than 64 bits');
  }

  bytes(): Buffer {
    const length = Number(this.varint());
    this.check(length);
    const bytes = this.buffer.subarray(this.at, this.at + length);
    this.at += length;
    return bytes;
  }

  skip(kind: number): void {
    if (kind === VARINT) this.varint();
    else if (kind === BYTES) this.bytes();
    else if (kind === FIXED64 || kind === FIXED32) {
      const length = kind === FIXED64 ? 8 : 4;
      this.check(length);
      this.at += length;
    } else throw new RangeError('a field is of a type that there is not');
  }

  private byte(): number {
    this.check(1);
    return this.buffer[this.at++] as number;
  }

  private check(length: number): void {
    if (this.at + length > this.buffer.length) throw new RangeError('the message ends too early');
  }
}
